"""Apache Flink, Beam's Flink job server and Beam's boot program, from Maven and Go into .tools/beam."""

from __future__ import annotations

import importlib.metadata
import os
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

# Beam's Java side may be older than the workers' Beam: a cluster's job server is, after each update of their image.
BEAM, JOB_SERVICE, FLINK = "2.70.0", "2.65.0", "1.19.0"
_LOGGING = ("org.slf4j:slf4j-api:1.7.36", "org.slf4j:slf4j-jdk14:1.7.36")
_ENGINE = (f"org.apache.flink:flink-clients:{FLINK}", *_LOGGING)
_JOB_SERVER = (
    f"org.apache.beam:beam-runners-flink-1.19:{BEAM}",
    f"org.apache.beam:beam-runners-java-job-service:{JOB_SERVICE}",
    *_LOGGING,
)


class NotHere(Exception):
    """A program cannot be had on this machine."""


@dataclass(frozen=True)
class Programs:
    """Class paths of Flink's processes and of the job server, and the boot program."""

    engine: str
    job_server: str
    boot: Path


def programs(folder: Path) -> Programs:
    """Gets what is not in `folder` yet.

    Raises:
        NotHere: a tool is missing, or a registry has not what is needed.
    """
    for tool in ("java", "mvn", "go"):
        if shutil.which(tool) is None:
            raise NotHere(f"{tool} is not installed: Flink needs Java 11 or 17 and Maven, Beam's boot program needs Go")
    engine, job_server = (_jars(folder / f"flink-{FLINK}", _ENGINE), _jars(folder / f"beam-{BEAM}", _JOB_SERVER))
    return Programs(f"{engine}/*", f"{job_server}/*", _boot(folder))


def _jars(folder: Path, artifacts: tuple[str, ...]) -> Path:
    if (folder / "pom.xml").exists():
        return folder
    making = folder.with_suffix(".part")
    shutil.rmtree(making, ignore_errors=True)
    making.mkdir(parents=True)
    wanted = "".join(
        "<dependency><groupId>{}</groupId><artifactId>{}</artifactId><version>{}</version></dependency>".format(
            *artifact.split(":")
        )
        for artifact in artifacts
    )
    (making / "pom.xml").write_text(
        "<project><modelVersion>4.0.0</modelVersion><groupId>local</groupId><artifactId>jars</artifactId>"
        f"<version>1</version><dependencies>{wanted}</dependencies></project>"
    )
    _done(making, "mvn", "-B", "-q", "dependency:copy-dependencies", "-DoutputDirectory=.")
    making.rename(folder)
    return folder


def _boot(folder: Path) -> Path:
    version = importlib.metadata.version("apache-beam")
    built = folder / f"boot-{version}"
    if not built.exists():
        _done(folder, "go", "install", f"github.com/apache/beam/sdks/v2/python/container@v{version}", GOBIN=str(folder))
        (folder / "container").rename(built)
    return built


def _done(folder: Path, *command: str, **environment: str) -> None:
    ran = subprocess.run(command, cwd=folder, env={**os.environ, **environment}, capture_output=True, text=True)
    if ran.returncode:
        raise NotHere(f"{' '.join(command)}: {(ran.stdout + ran.stderr).strip()[-800:]}")
