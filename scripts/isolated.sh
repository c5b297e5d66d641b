#!/usr/bin/env bash
# Makes an environment of its own for packages that cannot live in .venv beside the pipeline's, and prints its interpreter.
# Does nothing when it is there already. Needs .venv (`make setup`), for its pip.
# Usage: scripts/isolated.sh NAME REQUIREMENT...     makes .tools/NAME
set -euo pipefail
shopt -s inherit_errexit
cd "$(dirname "${BASH_SOURCE[0]}")/.."

readonly NAME=$1
shift
readonly TARGET=$PWD/.tools/$NAME
readonly STAMP=$TARGET/.requirements PYTHON=$TARGET/bin/python
readonly WANTED="$TARGET $*" # an environment holds absolute paths

fail() { printf 'isolated: %s\n' "$*" >&2; exit 1; }

current() { [ "$(cat "$STAMP" 2>/dev/null)" = "$WANTED" ] && "$PYTHON" -c '' 2>/dev/null; }

[ -x .venv/bin/python ] || fail "there is no .venv: run 'make setup' first."
mkdir -p .tools
if command -v flock >/dev/null; then # a second call waits for the first instead of working beside it
  exec 9>".tools/$NAME.lock"
  flock 9
fi
if ! current; then
  printf 'isolated: making .tools/%s with %s\n' "$NAME" "$*" >&2
  rm -rf "$TARGET"
  # From the interpreter behind .venv: .venv's own may be a copy that is bound to a C library in there.
  base=$(.venv/bin/python -c 'import sys; print(sys._base_executable)')
  "$base" -m venv --without-pip "$TARGET" || fail "could not make $TARGET (the reason is above)."
  .venv/bin/python -m pip --python "$PYTHON" install --quiet --disable-pip-version-check "$@" >&2 || fail \
    "pip could not install $* (its message is above): make a Python package registry reachable for pip."
  printf '%s\n' "$WANTED" >"$STAMP"
fi
printf '%s\n' "$PYTHON"
