"""Proves what the README asks of a machine, in minimal roots of Debian 12 and 13: `make test-fresh`, or
`python3 -m scripts.fresh [SUITE...]`, as root, with debootstrap and a Debian mirror.

A root holds Debian's minimal system and the packages that the README names, nothing more. In it an ordinary user runs
`make run` in a clone of the last commit. On Debian 13, which the image stands on, the steps of the build stage of
kubeflow/Dockerfile follow, and a run with what they installed.

The roots take over this machine's mirrors and certificates. They lie in .tools/fresh and go at the end, also where it
fails; the logs and the downloads stay.
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from scripts.dockerfile import stages

CHECKOUT = Path(__file__).resolve().parent.parent
PLACE = CHECKOUT / ".tools" / "fresh"
SUITES = ("bookworm", "trixie")
IMAGE_SUITE = "trixie"
USER_ID = 1001
HOME = Path("/home/somebody")
CLONE = HOME / "mnist-tfx"
COMPILERS = ("cc", "c++", "gcc", "g++", "clang")
BUNDLE = "/etc/ssl/certs/ca-certificates.crt"
# How this machine reaches its registries: environment variables, files, and files in the user's home.
WAYS = re.compile(r".*_proxy|pip_(extra_)?index_url|uv_(default_)?index(_url)?|npm_config_registry", re.I)
CERTIFICATES = re.compile(r".*(ca_certs|ca_bundle|ca_info|cainfo)|ssl_cert_file|pip_cert", re.I)
FILES = ("/etc/hosts", "/etc/resolv.conf", "/etc/pip.conf", "/etc/npmrc", "/etc/uv/uv.toml")
HOME_FILES = (".npmrc", ".config/pip/pip.conf", ".config/uv/uv.toml")


class Failed(Exception):
    """It cannot go on; the message says why, in one line."""


def say(message: str) -> None:
    """Progress, on stderr."""
    print(f"fresh: {message}", file=sys.stderr, flush=True)


def main(suites: list[str]) -> int:
    """Proves it for these suites, or for both; 0 where all went well."""
    try:
        check_machine()
        if "FRESH_UNSHARED" not in os.environ:
            # What is mounted or started from here on ends with this process.
            again = ("unshare", "--mount", "--pid", "--fork", "--kill-child", "--propagation=private")
            command = [*again, sys.executable, "-m", "scripts.fresh", *suites]
            os.execvpe(command[0], command, {**os.environ, "FRESH_UNSHARED": "1"})
        for suite in suites or SUITES:
            started = time.monotonic()
            root = Root(suite)
            try:
                root.make()
                root.as_user("make run", CLONE)
                if suite == IMAGE_SUITE:
                    follow_dockerfile(root)
            finally:
                root.remove()
            say(f"{suite}: passed in {time.monotonic() - started:.0f} s")
    except Failed as error:
        say(str(error))
        return 1
    return 0


def check_machine() -> None:
    """Raises Failed where this machine cannot make roots."""
    if os.geteuid() != 0:
        raise Failed("only root can make a Debian root: run it with sudo.")
    for tool in ("apt-get", "debootstrap", "git", "unshare"):
        if shutil.which(tool) is None:
            raise Failed(f"there is no {tool} here: on a Debian system, apt-get install {tool}.")


def mirror() -> str:
    """The address of the Debian archive that apt is set up with."""
    listed = subprocess.run(["apt-get", "--print-uris", "update"], capture_output=True, text=True).stdout
    for archive in re.findall(r"^'(\S+?)/dists/", listed, flags=re.M):
        if archive.endswith("/debian"):
            return str(archive)
    raise Failed("apt is set up with no Debian mirror (an address that ends in /debian).")


def required_packages() -> list[str]:
    """What the README tells the user of a bare Debian to install."""
    found = re.search(r"`apt-get install --no-install-recommends ([^`]+)`", (CHECKOUT / "README.md").read_text())
    if not found:
        raise Failed("README.md names no packages to install.")
    return found[1].split()


class Root:
    """A minimal Debian root with the README's packages, an ordinary user, and a clone of this checkout."""

    def __init__(self, suite: str) -> None:
        self.suite = suite
        self.path = PLACE / suite
        self.log = PLACE / f"{suite}.log"
        self.cache = PLACE / "cache"
        self.mounted: list[Path] = []

    def make(self) -> None:
        """Makes it all, or raises Failed."""
        packages = " ".join(required_packages())
        say(f"{self.suite}: a minimal root with {packages}; log: {self.log.relative_to(CHECKOUT)}")
        shutil.rmtree(self.path, ignore_errors=True)
        self.cache.mkdir(parents=True, exist_ok=True)
        self.log.write_text("")
        self._run("debootstrap", "--variant=minbase", self.suite, str(self.path), mirror())
        self._mount(self.path / "proc", "-t", "proc", "proc")
        self._mount(self.path / "dev", "--rbind", "/dev")
        settings = subprocess.run(["apt-config", "dump", "Acquire"], capture_output=True, text=True, check=True).stdout
        (self.path / "etc/apt/apt.conf.d/90host").write_text(settings)
        self._take_over()
        self.as_root("apt-get -qq update")
        self.as_root(f"DEBIAN_FRONTEND=noninteractive apt-get -qq install --no-install-recommends -y {packages}")
        self._take_over()  # ca-certificates has written a bundle of its own
        self.as_root(f"useradd --uid {USER_ID} --home-dir {HOME} somebody")
        self._run("git", "clone", "--quiet", "--no-hardlinks", str(CHECKOUT), self._inside(CLONE))
        self._inside(HOME / ".cache").mkdir(exist_ok=True)
        self.as_root(f"mkdir -p /app /build && chown -R somebody: {HOME} /app /build")
        self._mount(self._inside(HOME / ".cache"), "--bind", str(self.cache))
        self.as_root(f"chown somebody: {HOME}/.cache")
        for compiler in COMPILERS:
            if any((self.path / folder / compiler).exists() for folder in ("usr/bin", "usr/local/bin")):
                raise Failed(f"{self.suite}: the root holds a compiler, {compiler}.")

    def as_root(self, script: str) -> None:
        """Runs a shell script as the root's administrator."""
        self._run("chroot", str(self.path), "env", "-i", "PATH=/usr/sbin:/usr/bin:/sbin:/bin", "sh", "-ec", script)

    def as_user(self, script: str, folder: Path, **variables: str) -> None:
        """Runs a shell script in `folder`, with nothing of our environment but the ways to registries."""
        environment = {"HOME": str(HOME), "PATH": "/usr/local/bin:/usr/bin:/bin", **dict(ways()), **variables}
        assigned = [f"{name}={value}" for name, value in environment.items()]
        say(f"{self.suite}: {script}")
        user = f"--userspec={USER_ID}:{USER_ID}"
        script = f"cd {shlex.quote(str(folder))} && {script}"
        self._run("chroot", user, str(self.path), "env", "-i", *assigned, "sh", "-ec", script)

    def remove(self) -> None:
        """Undoes the mounts and removes the root."""
        while self.mounted:  # what is mounted must not be removed with the root
            subprocess.run(["umount", "--lazy", "--recursive", self.mounted.pop()], check=True)
        shutil.rmtree(self.path, ignore_errors=True)

    def folder_of_python(self) -> str:
        """Where the interpreter lies from which the set-up made .venv."""
        settings = self._inside(CLONE / ".venv" / "pyvenv.cfg").read_text()
        return re.findall(r"^home = (.+)$", settings, flags=re.M)[0]

    def _mount(self, where: Path, *what: str) -> None:
        self._run("mount", *what, where)
        self.mounted.append(where)

    def _take_over(self) -> None:
        for name in FILES:
            self._copy(Path(name), self._inside(Path(name)))
        self._copy(Path(os.environ.get("SSL_CERT_FILE", BUNDLE)), self._inside(Path(BUNDLE)))
        for name in HOME_FILES:
            self._copy(Path.home() / name, self._inside(HOME / name))

    def _copy(self, source: Path, target: Path) -> None:
        if source.exists():
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(source, target)

    def _inside(self, path: Path) -> Path:
        return self.path / path.relative_to("/")

    def _run(self, *command: str | Path) -> None:
        with self.log.open("ab") as log:
            done = subprocess.run(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        if done.returncode != 0:
            *_, last = self.log.read_text(errors="replace").split("\n")[:-1] or [""]
            raise Failed(f"{self.suite}: this failed; {self.log.relative_to(CHECKOUT)} ends with: {last}")


def ways() -> Iterator[tuple[str, str]]:
    """The environment variables that tell how this machine reaches its registries."""
    for name, value in os.environ.items():
        if WAYS.fullmatch(name):
            yield name, value
        elif CERTIFICATES.fullmatch(name):
            yield name, BUNDLE


def follow_dockerfile(root: Root) -> None:
    """Follows the build stage as Docker would, but as the ordinary user; then runs a pipeline with what it installed.

    The base image's Python 3.11 and pip are here the interpreter that `make run` has found, and a pip of its own.
    """
    base, context, folder = HOME / "base", HOME / "context", Path("/")
    python = root.folder_of_python()
    root.as_user(f"git clone --quiet {CLONE} {context}", HOME)
    root.as_user(f"{python}/python3.11 -m venv --without-pip {base}", HOME)
    root.as_user(f".venv/bin/python -m pip --python {base}/bin/python install --quiet pip", CLONE)
    variables = {"PATH": f"{base}/bin:{python}:/usr/bin:/bin"}
    for name, rest in stages()[2]:
        if name in ("ARG", "ENV"):
            variables.update(word.split("=", 1) for word in shlex.split(rest))
        elif name == "WORKDIR":
            folder = Path(rest)
        elif name == "COPY":
            *sources, target = rest.split()
            root.as_user(f"mkdir -p {folder / target} && cp -r {' '.join(sources)} {folder / target}", context)
        elif name == "RUN":
            root.as_user(rest, folder, **variables)
    root.as_user("rm -rf /build/*", HOME)  # the image's last stage copies /app/venv alone
    root.as_user(f"mkdir var && cp -r {CLONE}/var/datasets var", Path("/app"))
    short = "training.epochs=3 evaluation.min_accuracy=0.9 evaluation.min_class_accuracy=0.8"
    options = " ".join(f"--set {setting}" for setting in short.split())
    root.as_user(f"venv/bin/mnist-tfx run --home var --dataset mnist {options}", Path("/app"))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
