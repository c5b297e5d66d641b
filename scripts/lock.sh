#!/usr/bin/env bash
# Writes requirements.lock and kubeflow/requirements-gpu.lock from pyproject.toml: every version with its hashes, no index
# and no download address.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

uv=$(command -v uv || echo .tools/uv/bin/uv)
# Nothing that needs a compiler: wheels, and these, which are pure Python and have none. The lock says so itself, to whoever
# installs from it.
sources=(google-apitools kfp-server-api promise rouge-score)
"$uv" pip compile --quiet --universal --python-version 3.11 --extra dev --generate-hashes --no-emit-index-url --no-header \
  --emit-build-options --only-binary :all: "${sources[@]/#/--no-binary=}" "$@" pyproject.toml --output-file requirements.lock

# What TensorFlow needs for GPUs on top of that, for the container image alone (kubeflow/install.sh): Linux on x86-64.
tensorflow=$(sed -n 's/^tensorflow==\([^ ]*\).*/\1/p' requirements.lock)
mapfile -t known < <(sed -n 's/^\([a-z0-9._-]*\)==.*/--no-emit-package=\1/p' requirements.lock | sort -u)
printf 'tensorflow[and-cuda]==%s\n' "$tensorflow" |
  "$uv" pip compile --quiet --python-version 3.11 --python-platform x86_64-unknown-linux-gnu --generate-hashes \
    --no-annotate --no-emit-index-url --no-header --constraint requirements.lock "${known[@]}" "$@" \
    - --output-file kubeflow/requirements-gpu.lock
