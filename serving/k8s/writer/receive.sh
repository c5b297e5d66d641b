#!/usr/bin/env bash
# Unpacks a tar of MODEL/VERSION folders from its input, and puts each version in place whole: a server that looks
# meanwhile sees it not at all, or with all its files. A version that is there already is left alone.
#
#   tar -C var/serving -c mnist | receive.sh FOLDER
set -eu
folder=$1
incoming=$(mktemp -d "$folder/.incoming.XXXXXX")
trap 'rm -rf "$incoming"' EXIT
tar -x --no-same-owner -C "$incoming" -f -

shopt -s nullglob
versions=("$incoming"/*/[0-9]*)
if ((${#versions[@]} == 0)); then
  echo "the tar holds no MODEL/VERSION: make it in the folder of the models" >&2
  exit 1
fi
for version in "${versions[@]}"; do
  target=$folder/${version#"$incoming/"}
  if [[ ! -s $version/saved_model.pb ]]; then
    echo "$target: saved_model.pb is missing or empty" >&2
    exit 1
  fi
done
for version in "${versions[@]}"; do
  target=$folder/${version#"$incoming/"}
  if [[ -e $target ]]; then
    echo "$target was there already"
    continue
  fi
  mkdir -p "${target%/*}"
  mv -T "$version" "$target"
  echo "$target"
done
