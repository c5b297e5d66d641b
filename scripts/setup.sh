#!/usr/bin/env bash
# Makes .venv from requirements.lock: `make run` and `make test` call it first. Does nothing when nothing has changed.
# Everything it writes is inside the checkout: .venv/ and .tools/ (and uv's own download cache). It needs no compiler: the lock
# allows wheels, and the few source distributions of pure Python that it names.
# Usage: scripts/setup.sh [data]    with `data`, it ends before the work where the datasets cannot be had
set -euo pipefail
shopt -s inherit_errexit
cd "$(dirname "${BASH_SOURCE[0]}")/.."

readonly UV_VERSION=0.13.9
readonly STAMP=.venv/.setup-stamp # what the finished environment was made from
readonly BASE=.venv/.setup-base   # where its interpreter was made
readonly PYTHON=.tools/python     # Debian 12's Python 3.11, where there is no other

say() { printf 'setup: %s\n' "$*" >&2; }
fail() { say "$@"; exit 1; }

# What the environment was made from: a change of any of these brings it up to date.
fingerprint() {
  base
  sha256sum requirements.lock pyproject.toml setup.py scripts/setup.sh scripts/glibc.sh scripts/debian.sh
}

# Where it was made, which it cannot outlive: it holds absolute paths, and maybe another C library.
base() {
  pwd -P
  getconf GNU_LIBC_VERSION 2>/dev/null || true
}

# Its python is a link, to an interpreter that may have been removed.
current() {
  [ -f "$STAMP" ] && [ "$(cat "$STAMP")" = "$(fingerprint)" ] && [ -x .venv/bin/python ] && [ -x .venv/bin/mnist-tfx ]
}

check_machine() {
  case "$(uname -s)/$(uname -m)" in
    Linux/x86_64) ;;
    Darwin/arm64) say "macOS: nobody has run this there yet; pyfarmhash has no wheel and needs Xcode's command line tools" ;;
    *) fail "TFX 1.21 has no wheels for $(uname -s) on $(uname -m): use Linux on x86-64, or the image of kubeflow/Dockerfile." ;;
  esac
  local free_kib
  free_kib=$(df -Pk . | awk 'NR == 2 { print $4 }')
  [ "$free_kib" -gt $((6 * 1024 * 1024)) ] || say "warning: only $((free_kib / 1024)) MiB free here; the set-up needs about 6 GiB."
}

# Prints the path of uv: from the PATH, or got through pip into .tools/uv.
find_uv() {
  if command -v uv >/dev/null; then command -v uv; return; fi
  if ! .tools/uv/bin/uv --version >/dev/null 2>&1; then
    command -v python3 >/dev/null || fail "no python3 on the PATH: install Python 3 (any version) with pip, or install uv."
    say "fetching uv $UV_VERSION through pip into .tools/uv"
    rm -rf .tools/uv
    local failed="pip could not fetch uv (its message is above): make a Python package registry reachable for pip, or install uv."
    if python3 -m pip --version >/dev/null 2>&1; then
      PIP_ROOT_USER_ACTION=ignore python3 -m pip install --quiet --disable-pip-version-check \
        --target .tools/uv "uv==$UV_VERSION" >&2 || fail "$failed"
    elif python3 -m venv .tools/uv >/dev/null 2>&1; then
      .tools/uv/bin/python -m pip install --quiet --disable-pip-version-check "uv==$UV_VERSION" >&2 || fail "$failed"
    else
      rm -rf .tools/uv
      fail "no uv on the PATH, and this python3 has neither pip nor venv: install python3-pip (Debian, Ubuntu, Fedora), or uv."
    fi
  fi
  printf '%s\n' "$PWD/.tools/uv/bin/uv"
}

# uv does not read pip's configuration: where only pip was told of a mirror, uv is told of the same one.
follow_pip_mirror() {
  local index
  if [ -z "${UV_DEFAULT_INDEX:-}${UV_INDEX_URL:-}" ] && [ ! -f "${XDG_CONFIG_HOME:-${HOME:-}/.config}/uv/uv.toml" ] && [ ! -f /etc/uv/uv.toml ]; then
    index=${PIP_INDEX_URL:-$(python3 -m pip config get global.index-url 2>/dev/null || true)}
    if [ -n "$index" ]; then export UV_DEFAULT_INDEX="$index"; fi
  fi
}

# With the PATH's Python 3.11, or one that uv has or fetches. Its downloads come from elsewhere than packages do: where only
# package registries can be reached, Debian 12's mirror has one, which runs on any newer Debian.
make_venv() {
  local uv=$1 said why
  if said=$("$uv" venv --quiet --no-project --python 3.11 .venv 2>&1); then return; fi
  if [ ! -x "$PYTHON/usr/bin/python3.11" ]; then
    why=$(bash scripts/debian.sh bookworm "$PYTHON" python3.11-minimal libpython3.11-minimal libpython3.11-stdlib 2>&1) || fail \
      "no Python 3.11 on the PATH; uv could not fetch one (${said//$'\n'/ }), and $why: install Python 3.11."
    say "no Python 3.11 here, and uv could not fetch one: put Debian 12's into $PYTHON for this checkout alone"
  fi
  "$uv" venv --quiet --no-project --python "$PYTHON/usr/bin/python3.11" .venv ||
    fail "Debian 12's Python 3.11 does not run here (its message is above): install Python 3.11."
}

install() {
  local uv=$1
  if [ "$(cat "$BASE" 2>/dev/null)" != "$(base)" ] || ! .venv/bin/python -c '' 2>/dev/null; then
    say "making .venv from requirements.lock (about 3 GB the first time)"
    rm -rf .venv
    make_venv "$uv"
    bash scripts/glibc.sh "$uv"
    base >"$BASE"
  else
    say "bringing .venv up to date"
  fi
  local build=()
  [ "$(uname -s)" != Darwin ] || build=(--no-binary pyfarmhash)
  "$uv" pip sync --quiet --python .venv --require-hashes --compile-bytecode ${build[@]+"${build[@]}"} requirements.lock || fail \
    "uv could not install what requirements.lock names (its message is above): make a Python package registry reachable."
  "$uv" pip install --quiet --python .venv --no-deps --no-build-isolation --editable .
}

# Before the work, so that nobody waits for gigabytes to read this. Where there is no python3, `mnist-tfx run` asks the same.
check_data() {
  command -v python3 >/dev/null || return 0
  local missing
  missing=$(PYTHONPATH=.tools/src python3 -B -m mnist_tfx.components.datasets.sources 2>/dev/null) || [ -z "$missing" ] || fail "$missing"
}

main() {
  if current; then return; fi
  check_machine
  mkdir -p .tools/src 2>/dev/null || fail "cannot write to $PWD: use a checkout in a folder of your own."
  ln -sfn ../.. .tools/src/mnist_tfx # the package of that name, for whom the installed one is not there or not seen
  if [ "${1:-}" = data ]; then check_data; fi
  if command -v flock >/dev/null; then # a second `make` waits for the first instead of working beside it
    exec 9>.tools/setup.lock
    flock 9
    if current; then return; fi
  fi
  local uv
  uv=$(find_uv)
  follow_pip_mirror
  if [ -n "${PIP_CERT:-}" ]; then export SSL_CERT_FILE="${SSL_CERT_FILE:-$PIP_CERT}"; fi
  export UV_HTTP_TIMEOUT="${UV_HTTP_TIMEOUT:-180}"
  # Some machines switch bytecode off; without it every start takes three times as long.
  unset PYTHONDONTWRITEBYTECODE
  local started=$SECONDS made_from
  made_from=$(fingerprint)
  rm -f "$STAMP" # an interrupted change leaves a mixture, which must not pass for what was there before
  install "$uv"
  printf '%s\n' "$made_from" >"$STAMP"
  say "done in $((SECONDS - started)) s"
}

main "$@"
