#!/bin/bash
# The version before this one, in target/previous/COMMIT: its binaries, and its manifests with a tag of their own. Made once
# for each commit. Prints the folder.
# Usage: tests/previous.sh [COMMIT]
set -euo pipefail
cd "$(dirname "$0")/.."
# The version before, as long as none has a tag.
untagged=36120b2c

named=${1:-$(git describe --tags --abbrev=0 --match 'v*' HEAD^ 2>/dev/null || echo "$untagged")}
commit=$(git rev-parse --verify --quiet "$named^{commit}") || {
  echo "$named is no commit here: fetch the whole history, or name one with PREVIOUS" >&2
  exit 2
}
folder=$PWD/target/previous/$commit
target=${CARGO_BUILD_TARGET:-$(rustc -vV | sed -n 's/^host: //p')}
binaries=(fleet-spoke fleet-hub fleet)
if [ ! -e "$folder/made" ]; then
  mkdir -p "$folder/bin"
  rm -rf "$folder/source"
  mkdir "$folder/source"
  git archive "$commit" | tar -x -C "$folder/source"
  # A folder of its own: cargo takes crates of the same name and place for the same, and mixes both versions.
  (cd "$folder/source" && CARGO_TARGET_DIR=$folder/target cargo build --workspace "${binaries[@]/#/--bin=}" >&2)
  for binary in "${binaries[@]}"; do
    install -m 0755 "$folder/target/$target/debug/$binary" "$folder/bin/$binary"
  done
  rm -rf "$folder/deploy"
  cp -r "$folder/source/deploy" "$folder/deploy"
  # Both versions are loaded side by side.
  find "$folder/deploy" -name '*.yaml' -exec sed -Ei \
    -e 's#(ghcr.io/restic-fleet/(spoke|hub)):[A-Za-z0-9._-]+#\1:previous#' -e 's#newTag: [A-Za-z0-9._-]+#newTag: previous#' {} +
  for values in "$folder"/deploy/charts/*/values.yaml; do
    [ ! -e "$values" ] || sed -i 's#^  tag: ""#  tag: previous#' "$values"
  done
  # Versions that had none were applied file by file, and are the same by one.
  [ -e "$folder/deploy/hub/kustomization.yaml" ] ||
    printf 'resources: [%s]\n' "$(cd "$folder/deploy/hub" && printf '%s, ' *.yaml)" >"$folder/deploy/hub/kustomization.yaml"
  rm -rf "$folder/source" "$folder/target"
  touch "$folder/made"
fi
echo "$folder"
