"""A browser for tests and screenshots, and axe-core: found on this machine, or fetched into .tools/browser.

`python -m scripts.browser` gets both and prints where they are; a second call finds them at once. Nothing is installed
into the system and nothing needs root: Debian's packages are unpacked beside the checkout's other tools, and a wrapper
tells Chromium where its libraries and fonts are.
"""

from __future__ import annotations

import base64
import fcntl
import hashlib
import os
import shlex
import shutil
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

FOLDER = Path(__file__).resolve().parents[1] / ".tools" / "browser"

AXE_VERSION = "4.14.1"
AXE_SHA512 = "FHfa+lmNjQZfJz1q8wKqIDwC6DExcHt/pkjNQb09a3NPjCKg2rhu5qb2S4r76ASyFNNtuFooJpZe37OgudVGtQ=="

_ON_THE_PATH = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
_PACKAGES = ("chromium", "fonts-dejavu-core")
_TIMEOUT_S = 600
_APT = ("apt-get", "-qq", "-o", "Acquire::Retries=1", "-o", "Acquire::http::Timeout=20", "-o", "APT::Sandbox::User=")


class Unavailable(Exception):
    """It is not on this machine and cannot be fetched; the words say why and what helps."""


def chromium() -> Path:
    """A Chromium that starts: from the PATH, else Debian's package. Raises Unavailable."""
    wrapper = FOLDER / "chromium" / "chromium"
    if _starts(wrapper):
        return wrapper
    for name in _ON_THE_PATH:
        found = shutil.which(name)
        if found and _starts(Path(found)):
            return Path(found)
    with _only_one():
        if not _starts(wrapper):
            _say("fetching Debian's chromium into .tools/browser (110 MB or more, once)")
            try:
                _unpack_chromium(wrapper.parent)
            except _Failed as failure:
                raise Unavailable(
                    f"no browser: no chromium on the PATH, and {failure}. Remedy: apt-get install chromium, or any "
                    "Chrome or Chromium on the PATH."
                ) from failure
    return wrapper


def axe() -> Path:
    """The script of axe-core, of a pinned version and hash. Raises Unavailable."""
    script = FOLDER / f"axe-core-{AXE_VERSION}" / "axe.min.js"
    if script.is_file():
        return script
    with _only_one():
        if not script.is_file():
            _say(f"fetching axe-core {AXE_VERSION} from npm into .tools/browser")
            with tempfile.TemporaryDirectory(dir=FOLDER) as folder:
                try:
                    archive = _pack_axe(Path(folder))
                except _Failed as failure:
                    raise Unavailable(
                        f"no axe-core: {failure}. Remedy: install npm, and make an npm registry reachable."
                    ) from failure
                script.parent.mkdir(exist_ok=True)
                with tarfile.open(archive) as tar:
                    content = tar.extractfile(f"package/{script.name}")
                    assert content is not None
                    unfinished = Path(folder) / script.name
                    unfinished.write_bytes(content.read())
                os.replace(unfinished, script)
    return script


class _Failed(Exception):
    """A command failed, and why."""


def _pack_axe(folder: Path) -> Path:
    """The package as the registry gives it, once its hash is the pinned one."""
    impatient = ("--fetch-retries=1", "--fetch-retry-mintimeout=1000", "--fetch-timeout=60000")
    spec = f"axe-core@{AXE_VERSION}"
    _run(["npm", "pack", spec, "--loglevel=error", "--ignore-scripts", *impatient, f"--pack-destination={folder}"])
    [archive] = folder.glob("*.tgz")
    if hashlib.sha512(archive.read_bytes()).digest() != base64.b64decode(AXE_SHA512):
        raise _Failed(f"what npm gave as {spec} is not what it was when it was pinned")
    return archive


def _unpack_chromium(into: Path) -> None:
    """Fetches and unpacks the packages that this system lacks, and writes the wrapper last."""
    for tool in ("apt-get", "dpkg-deb"):
        if shutil.which(tool) is None:
            raise _Failed(f"this is no Debian system ({tool} is missing)")
    shutil.rmtree(into, ignore_errors=True)
    root = into / "root"
    root.mkdir(parents=True)
    with tempfile.TemporaryDirectory(dir=into) as folder:
        for archive in _download(Path(folder)):
            _run(["dpkg-deb", "-x", str(archive), str(root)])
    binary = root / "usr" / "lib" / "chromium" / "chromium"
    if not binary.is_file():
        raise _Failed("Debian's chromium package does not hold usr/lib/chromium/chromium")
    _write_wrapper(into / "chromium", root, binary)
    if not _starts(into / "chromium"):
        missing = _run([str(into / "chromium"), "--version"], check=False)
        raise _Failed(f"Debian's chromium does not start here: {missing}")


def _download(folder: Path) -> list[Path]:
    """Chromium and what it needs beyond the system's packages; the system's own lists stay as they are."""
    cache = folder / "cache"
    (cache / "archives" / "partial").mkdir(parents=True)
    # `--download-only` writes nothing but the cache, which is ours: no lock of the system's is needed.
    own = ("-o", f"Dir::Cache={cache}", "-o", "Debug::NoLocking=true")
    download = ("-y", "--no-install-recommends", "--download-only", "install", *_PACKAGES)
    try:
        _run([*_APT, *own, *download])
    except _Failed:
        # The system may have no package lists, or old ones: fetch lists of our own.
        lists = folder / "lists"
        (lists / "partial").mkdir(parents=True)
        private = (*own, "-o", f"Dir::State::Lists={lists}")
        _run([*_APT, *private, "update"])
        _run([*_APT, *private, *download])
    return sorted((cache / "archives").glob("*.deb"))


def _write_wrapper(wrapper: Path, root: Path, binary: Path) -> None:
    """A script that starts `binary` with the unpacked libraries and fonts beside the system's own."""
    folders = sorted({str(path.parent) for path in root.rglob("*.so*")} - {str(binary.parent)})
    fonts = wrapper.with_name("fonts.conf")
    fonts.write_text(
        '<?xml version="1.0"?>\n<!DOCTYPE fontconfig SYSTEM "urn:fontconfig:fonts.dtd">\n<fontconfig>\n'
        '  <include ignore_missing="yes">/etc/fonts/fonts.conf</include>\n'
        f"  <dir>{root / 'usr' / 'share' / 'fonts'}</dir>\n"
        f"  <cachedir>{wrapper.with_name('font-cache')}</cachedir>\n</fontconfig>\n"
    )
    wrapper.write_text(
        "#!/bin/sh\n"
        f'export LD_LIBRARY_PATH={shlex.quote(":".join(folders))}"${{LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}}"\n'
        f"export FONTCONFIG_FILE={shlex.quote(str(fonts))}\n"
        f'exec {shlex.quote(str(binary))} "$@"\n'
    )
    wrapper.chmod(0o755)


def _starts(program: Path) -> bool:
    """Whether it says its version: a stub that asks for another package manager does not."""
    if not program.is_file():
        return False
    return "Chrom" in _run([str(program), "--version"], check=False)


def _run(command: Sequence[str], *, check: bool = True) -> str:
    """What a command says. Raises _Failed."""
    environment = {**os.environ, "LC_ALL": "C.UTF-8", "DEBIAN_FRONTEND": "noninteractive"}
    try:
        result = subprocess.run(
            command, env=environment, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=_TIMEOUT_S
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        if not check:
            return ""
        raise _Failed(f"`{command[0]}` failed: {error}") from error
    words = " ".join((result.stdout + result.stderr).split())[-300:]
    if check and result.returncode != 0:
        raise _Failed(f"`{command[0]}` failed: {words or f'exit status {result.returncode}'}")
    return words


@contextmanager
def _only_one() -> Iterator[None]:
    """A second process waits for the first instead of fetching beside it."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    with open(FOLDER / ".lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _say(line: str) -> None:
    print(f"browser: {line}", file=sys.stderr, flush=True)


def main() -> int:
    """Gets both; 1 where one cannot be had."""
    try:
        print(chromium(), axe(), sep="\n")
    except Unavailable as reason:
        _say(str(reason))
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
