#!/usr/bin/env bash
# Startup and readiness probe: succeeds if every model of models.config has a version in state AVAILABLE.
#
#   models_available.sh [MODELS_CONFIG] [REST_PORT]
#
# `GET /v1/models/NAME` answers 200 also while a version is START, LOADING or END, so an httpGet probe would send
# requests to a server that cannot answer them. Needs nothing but bash, in which the image's own entry point is
# written too; there is no wget and no Python in the image, and curl only in the one for GPUs.
set -u
config=${1:-/config/models.config}
port=${2:-8501}

# The body of `GET $1`, if the answer is 200. HTTP/1.0: the body ends where the connection does, and is never chunked.
get() {
  local line status body=''
  exec 3<>"/dev/tcp/127.0.0.1/$port" || return 1
  printf 'GET %s HTTP/1.0\r\nHost: localhost\r\n\r\n' "$1" >&3
  IFS= read -r -t 2 status <&3 || return 1
  while IFS= read -r -t 2 line <&3 || [[ -n $line ]]; do body+=$line$'\n'; done
  exec 3>&-
  [[ $status =~ ^HTTP/1\.[01]\ 200 ]] && printf '%s' "$body"
}

text=''
while IFS= read -r line || [[ -n $line ]]; do text+=${line%%#*}$'\n'; done <"$config" || exit 1

models=()
while [[ $text =~ (^|[^_[:alnum:]])name[[:space:]]*:[[:space:]]*[\"\']([^\"\']+)[\"\'](.*) ]]; do
  models+=("${BASH_REMATCH[2]}")
  text=${BASH_REMATCH[3]}
done
if ((${#models[@]} == 0)); then
  echo "no model is named in $config"
  exit 1
fi

for model in "${models[@]}"; do
  if ! body=$(get "/v1/models/$model" 2>&1); then
    echo "$model: no answer, or not 200: ${body:0:200}"
    exit 1
  fi
  if ! [[ $body =~ \"state\"[[:space:]]*:[[:space:]]*\"AVAILABLE\" ]]; then
    echo "$model: no version is AVAILABLE: ${body:0:500}"
    exit 1
  fi
done
