"""`mnist-tfx doctor`: what this machine has and lacks, and the remedy for each."""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict

SUMMARY = "what this machine has and lacks, and the remedy for each"
EXAMPLE = "mnist-tfx doctor"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds this command's options."""
    parser.add_argument("--home", metavar="DIR", help="the folder of all state (default: $MNIST_TFX_HOME, else var/)")
    parser.add_argument("--json", action="store_true", help="print one JSON object: ok, checks")


def run(args: argparse.Namespace) -> int:
    """Prints every check; 0 where none failed, else 1."""
    from mnist_tfx.components.datasets.published import DATASETS
    from mnist_tfx.pipeline.doctor.checks import examine
    from mnist_tfx.pipeline.home import Home

    checks = examine(Home.resolve(args.home), () if args.project else DATASETS)  # a project has data of its own
    ok = all(check.status != "fail" for check in checks)
    if args.json:
        print(json.dumps({"ok": ok, "checks": [asdict(check) for check in checks]}, indent=2))
        return 0 if ok else 1
    width = max(len(check.name) for check in checks)
    for check in checks:
        print(f"{check.status:4}  {check.name:{width}}  {check.found}")
        if check.remedy:
            print(f"{'':4}  {'':{width}}  -> {check.remedy}")
    print("This machine can run the pipeline." if ok else "This machine cannot run the pipeline yet: see `fail` above.")
    return 0 if ok else 1
