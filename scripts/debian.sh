#!/usr/bin/env bash
# Unpacks packages of a Debian suite into a folder, from the host's own Debian mirror and checked with the keyring that Debian
# installs. The system stays as it is. Where it cannot, it prints the reason as one line and exits 1.
# Usage: scripts/debian.sh SUITE FOLDER PACKAGE...
set -euo pipefail

readonly SUITE=$1 FOLDER=$2
shift 2

fail() { printf '%s\n' "$1" >&2; exit 1; }

for tool in apt-get dpkg-deb; do
  command -v "$tool" >/dev/null || fail "this is no Debian system ('$tool' is missing)"
done

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
mkdir -p "$work/lists/partial" "$work/cache/archives/partial" "$work/debs"
true >"$work/log"
apt_private() {
  apt-get -qq \
    -o Dir::Etc::sourcelist="$work/sources.list" -o Dir::Etc::sourceparts=- \
    -o Dir::Etc::preferences=- -o Dir::Etc::preferencesparts=- \
    -o Dir::State::Lists="$work/lists" -o Dir::Cache="$work/cache" -o APT::Sandbox::User= "$@"
}
fetch_from() {
  printf 'deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] %s %s main\n' "$1" "$SUITE" >"$work/sources.list"
  apt_private update && (cd "$work/debs" && apt_private download "${@:2}")
}

# Of the archives that apt is set up with, the first that holds the suite, signed by Debian.
for archive in $(apt-get --print-uris update 2>/dev/null | sed -n "s|^'\\([^']*\\)/dists/.*|\\1|p" | awk '!seen[$0]++'); do
  if fetch_from "$archive" "$@" >>"$work/log" 2>&1; then
    mkdir -p "$FOLDER"
    for package in "$work"/debs/*.deb; do dpkg-deb -x "$package" "$FOLDER" || fail "no space for $SUITE's packages"; done
    exit 0
  fi
done
said=$(sed -n 's/^E: //p' "$work/log" | head -n 1)
fail "none of apt's archives is a Debian mirror with $SUITE${said:+ (apt-get: $said)}"
