#!/usr/bin/env bash
# Writes requirements.lock from pyproject.toml: every version with its hashes, no index and no download address.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

uv=$(command -v uv || echo .tools/uv/bin/uv)
"$uv" pip compile --quiet --universal --python-version 3.11 --extra dev --generate-hashes --no-emit-index-url --no-header \
  "$@" pyproject.toml --output-file requirements.lock
