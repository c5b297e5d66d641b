"""A plain PyTorch loop, as https://docs.pytorch.org/tutorials/beginner/basics/quickstart_tutorial.html writes it.

Runs in PyTorch's own environment (`benchmarks.race` makes it); imports nothing of ours. The layers and the
optimizer are those of our recipe `mnist/benchmark`; the rest is the tutorial's.
"""

from __future__ import annotations

import argparse
import json
import time

import numpy as np
import torch
import torch._dynamo  # which torch.optim imports at its first use, for seconds: imports do not count here
from torch import nn
from torch.utils.data import DataLoader, TensorDataset


def main() -> None:
    """Prints a JSON object as the last line: `epochs`, a row of seconds and accuracy each."""
    parser = argparse.ArgumentParser(description="Train a dense classifier with plain PyTorch.")
    parser.add_argument("--data", required=True)
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--epochs", type=int, default=12)
    parser.add_argument("--target", type=float, default=0.98)
    parser.add_argument("--limit", type=float, default=60.0, help="seconds after which no further epoch begins")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--device", default="cpu")
    args = parser.parse_args()

    arrays = np.load(args.data)
    torch.manual_seed(args.seed)
    started = time.perf_counter()

    def loader(split: str, shuffle: bool) -> DataLoader:
        pixels = torch.from_numpy(arrays[f"x_{split}"].astype("float32") / 255)
        labels = torch.from_numpy(arrays[f"y_{split}"].astype("int64"))
        return DataLoader(TensorDataset(pixels, labels), batch_size=args.batch_size, shuffle=shuffle)

    train_loader, test_loader = loader("train", shuffle=True), loader("test", shuffle=False)
    model = nn.Sequential(
        nn.Flatten(), nn.Linear(28 * 28, 512), nn.ReLU(), nn.Linear(512, 512), nn.ReLU(), nn.Linear(512, 10)
    ).to(args.device)
    loss_fn = nn.CrossEntropyLoss()
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    epochs: list[tuple[float, float]] = []
    for _ in range(args.epochs):
        model.train()
        for x, y in train_loader:
            x, y = x.to(args.device), y.to(args.device)
            loss = loss_fn(model(x), y)
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()
        model.eval()
        correct = 0.0
        with torch.no_grad():
            for x, y in test_loader:
                x, y = x.to(args.device), y.to(args.device)
                correct += (model(x).argmax(1) == y).type(torch.float).sum().item()
        epochs.append((time.perf_counter() - started, correct / len(arrays["y_test"])))
        if epochs[-1][1] >= args.target or epochs[-1][0] >= args.limit:
            break
    print(json.dumps({"epochs": epochs}))


if __name__ == "__main__":
    main()
