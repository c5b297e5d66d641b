#!/usr/bin/env bash
# Writes TF Serving's SSLConfig (a text-proto with the keys inside) from PEM files, then becomes the server.
#
#   with_ssl_config.sh PEM_FOLDER SSL_CONFIG COMMAND [ARGUMENT...]
set -eu
folder=$1
ssl_config=$2
shift 2

# A PEM file as a text-proto string on one line. Base64 and its headers hold no quote and no backslash.
quoted() {
  local line text=''
  while IFS= read -r line || [[ -n $line ]]; do text+=${line%$'\r'}'\n'; done <"$folder/$1"
  printf '"%s"' "$text"
}

for name in tls.key tls.crt ca.crt; do
  if [[ ! -s $folder/$name ]]; then
    echo "$folder/$name is missing or empty: the Secret needs tls.key, tls.crt and ca.crt, in PEM" >&2
    exit 1
  fi
done

umask 077
{
  printf 'server_key: %s\n' "$(quoted tls.key)"
  printf 'server_cert: %s\n' "$(quoted tls.crt)"
  printf 'custom_ca: %s\n' "$(quoted ca.crt)"
  printf 'client_verify: true\n'
} >"$ssl_config"

exec "$@"
