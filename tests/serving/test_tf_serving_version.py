"""The model that a run pushes answers the same in the TensorFlow of the pinned TF Serving as it does here.

An environment of its own (.tools/tf-serving) holds that TensorFlow: `make test-tf-serving-version`.
"""

from __future__ import annotations

import base64
import json
import subprocess
import sys
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from tests.fixtures.tiny_run import TinyRun, decode, read_examples, read_split

CHECKOUT = Path(__file__).resolve().parents[2]
DEPLOYMENT = CHECKOUT / "serving" / "k8s" / "base" / "deployment.yaml"
COUNT = 50


def pinned_version() -> str:
    """The server's version, from the image of the Deployment."""
    [container] = yaml.safe_load(DEPLOYMENT.read_text())["spec"]["template"]["spec"]["containers"]
    image, _, tag = container["image"].partition(":")
    assert image == "tensorflow/serving"
    return str(tag)


def session_answers(python: str, model: Path, inputs: Path, answers: Path) -> dict[str, Any]:
    """What the model answers in the TensorFlow of an interpreter."""
    script = CHECKOUT / "tests" / "fixtures" / "tf1_session.py"
    done = subprocess.run([python, script, model, inputs, answers], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return dict(json.loads(answers.read_text()))


def texts(values: list[bytes]) -> list[str]:
    return [base64.b64encode(value).decode() for value in values]


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_the_pushed_model_answers_the_same_in_the_pinned_tf_version(tiny_run: TinyRun, tmp_path: Path) -> None:
    version = pinned_version()
    make = ["bash", str(CHECKOUT / "scripts" / "isolated.sh"), "tf-serving", f"tensorflow-cpu=={version}"]
    made = subprocess.run(make, stdout=subprocess.PIPE, text=True, check=False)
    assert made.returncode == 0, "the environment could not be made; the reason is on stderr"

    encoded = [image for image, _ in read_split(tiny_run.examples, "test")[:COUNT]]
    examples = [one.SerializeToString() for one in islice(read_examples(tiny_run.examples, "test"), COUNT)]
    inputs = tmp_path / "inputs.json"
    sent = {
        "serving_default": {"examples": texts(examples)},
        "images": {"images": decode(encoded).tolist()},
        "encoded_images": {"encoded_images": texts(encoded)},
    }
    inputs.write_text(json.dumps(sent))
    model = tiny_run.home.serving("kmnist") / tiny_run.versions()[-1]

    ours = session_answers(sys.executable, model, inputs, tmp_path / "ours.json")
    theirs = session_answers(made.stdout.strip(), model, inputs, tmp_path / "theirs.json")

    assert theirs["version"] == version
    assert theirs["signatures"].keys() == sent.keys()
    for name, answer in theirs["signatures"].items():
        expected = ours["signatures"][name]
        probabilities = np.array(answer["probabilities"])
        assert probabilities.shape == (COUNT, 10)
        np.testing.assert_allclose(probabilities, expected["probabilities"], rtol=0, atol=1e-5)
        assert answer["classes"] == expected["classes"]
        assert answer["labels"] == expected["labels"]
        difference = np.abs(probabilities - expected["probabilities"]).max()
        print(
            f"\n{name}: {COUNT} answers in TensorFlow {version} as in {ours['version']}: classes and labels are equal, "
            f"probabilities differ by at most {difference:.1e}",
            end="",
        )
