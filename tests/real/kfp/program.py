"""The program of main.go: Kubeflow Pipelines' own compiler, driver and launcher.

Go builds it from a checkout of `REPOSITORY` at `COMMIT`: the one that KFP_SOURCE names, or one that
git gets into .tools/kfp. ARGO_SOURCE may name a checkout of github.com/argoproj/argo-workflows for it.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

REPOSITORY = "github.com/kubeflow/pipelines"
COMMIT = "7b70c7b95f6832772efd6fd0029a4024491a0f44"  # of August 2026, after version 2.16
CHECKOUT = Path(__file__).resolve().parents[3]
MAIN = Path(__file__).with_name("main.go")
# How go tells what does not compile in it; where something cannot be fetched, it names it too, but without the heading.
_OURS = re.compile(r"^# command-line-arguments\n\S*main\.go:", re.MULTILINE)


def program() -> Path:
    """The program; built once for each version of it."""
    if shutil.which("go") is None:
        pytest.skip("Go is not installed: install Go 1.26 to try the pipeline with Kubeflow's own backend")
    folder = CHECKOUT / ".tools" / "kfp"
    built = folder / f"kfp-{COMMIT[:12]}-{hashlib.sha256(MAIN.read_bytes()).hexdigest()[:12]}"
    if built.exists():
        return built
    folder.mkdir(parents=True, exist_ok=True)
    source = _source(folder / "source")
    module = folder / "kfp.mod"
    module.write_text((source / "go.mod").read_text().replace("=> ./", f"=> {source}/"))
    shutil.copy(source / "go.sum", folder / "kfp.sum")
    if argo := os.environ.get("ARGO_SOURCE"):
        _done(source, "go", "mod", "edit", f"-replace=github.com/argoproj/argo-workflows/v4={argo}", str(module))
    _done(source, "go", "build", f"-modfile={module}", "-mod=mod", "-o", str(built), str(MAIN))
    return built


def _source(folder: Path) -> Path:
    if named := os.environ.get("KFP_SOURCE"):
        return Path(named).resolve()
    if not (folder / "go.mod").exists():
        subprocess.run(["git", "init", "--quiet", folder], check=True)
        fetch = ["git", "-C", str(folder), "fetch", "--quiet", "--depth=1", f"https://{REPOSITORY}", COMMIT]
        if subprocess.run(fetch).returncode:
            pytest.skip(f"{REPOSITORY} cannot be reached: name a checkout of commit {COMMIT} in KFP_SOURCE")
        subprocess.run(["git", "-C", folder, "checkout", "--quiet", "FETCH_HEAD"], check=True)
    return folder


def _done(folder: Path, *command: str) -> None:
    finished = subprocess.run(command, cwd=folder, capture_output=True, text=True)
    if finished.returncode:
        reason = f"Kubeflow's backend cannot be built here: {' '.join(command)}: {finished.stderr.strip()[-800:]}"
        if _OURS.search(finished.stderr) or os.environ.get("CI"):
            pytest.fail(reason, pytrace=False)
        pytest.skip(reason)


def printed(kfp: Path, *arguments: str | Path) -> str:
    """What the program prints."""
    ran = subprocess.run([kfp, *arguments], capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr
    return ran.stdout


def asked(kfp: Path, *arguments: str | Path) -> Any:
    """What the program answers, in JSON."""
    return json.loads(printed(kfp, *arguments))
