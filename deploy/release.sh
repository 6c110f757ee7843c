#!/bin/bash
# All that a release has, into target/release-files: binaries, images as archives with what they are made of, charts, manifests,
# the kinds as JSON schemas, the manifest of krew, and checksums. docs/release.md has how they are signed and checked.
#
#   REGISTRY=registry.example.org/backup   pushes images and charts there, and charts and manifests name it
#   TAG=v0.1.0                             the version of Cargo.toml unless given; the charts have it too
#   URL=https://…/releases/download        where the archives will be found, for krew
set -euo pipefail
cd "$(dirname "$0")/.."
version=$(sed -n '/^\[workspace.package\]/,/^\[/s/^version = "\(.*\)"/\1/p' Cargo.toml)
export TAG=${TAG:-v$version}
# The charts name their image by v and their appVersion.
[[ $TAG == v[0-9]* ]] || { echo "release: TAG=$TAG must be v and a version, such as v$version" >&2; exit 1; }
export SOURCE_DATE_EPOCH=${SOURCE_DATE_EPOCH:-$(git log -1 --format=%ct)}
url=${URL:-https://github.com/restic-fleet/restic-fleet/releases/download}
out=target/release-files
bin=${FLEET_TOOLS:-.testbed/bin}

deploy/images/build.sh
# Which that has built.
release=target/${CARGO_BUILD_TARGET:+$CARGO_BUILD_TARGET/}debug/release
rm -rf $out && mkdir -p $out/schemas
archive() { tar --sort=name --mtime="@$SOURCE_DATE_EPOCH" --owner=0 --group=0 --numeric-owner -C "$2" -cf - . | gzip -9n >"$out/$1"; }

while read -r arch built; do
  for name in fleet fleet-hub fleet-spoke; do
    stage=$(mktemp -d)
    cp LICENSE "$stage/"
    cp "$built/$name" "$stage/$name"
    [ $name != fleet ] || cp "$built/$name" "$stage/kubectl-fleet"
    archive "$name-linux-$arch.tar.gz" "$stage"
    rm -rf "$stage"
  done
done <target/images/built
$release schemas $out/schemas
archive crd-schemas.tar.gz $out/schemas
rm -rf $out/schemas
$release krew $out "$TAG" --url "$url"
cp target/images/*.cdx.json target/images/*.provenance.json target/images/digests $out/
for image in spoke hub; do archive "image-$image.tar.gz" "target/images/$image"; done

# Manifests with the images of this release.
registry=${REGISTRY:-ghcr.io/restic-fleet}
for part in spoke hub; do
  { [ $part = hub ] || for file in deploy/crds/*.yaml; do cat "$file"; echo ---; done
    for file in deploy/$part/[0-9]*.yaml; do cat "$file"; echo ---; done; } |
    sed "s,ghcr.io/restic-fleet/$part:dev,$registry/$part:$TAG," >$out/$part.yaml
  # As the manifests, so the charts: without further values they name the images of this release.
  stage=$(mktemp -d)
  cp -r deploy/charts/$part "$stage/$part"
  sed -i "s,^  registry: ghcr.io/restic-fleet\$,  registry: $registry," "$stage/$part/values.yaml"
  grep -qxF "  registry: $registry" "$stage/$part/values.yaml"
  "$bin/helm" package "$stage/$part" --version "${TAG#v}" --app-version "${TAG#v}" -d $out >/dev/null
  rm -rf "$stage"
  if [ -n "${REGISTRY:-}" ]; then
    # shellcheck disable=SC2086
    "$bin/helm" push ${HELM_PUSH_OPTIONS:-} "$out/fleet-$part-${TAG#v}.tgz" "oci://$REGISTRY/charts"
  fi
done
(cd $out && sha256sum -- * >checksums.txt)
echo "[release] $out:"
ls -l $out
