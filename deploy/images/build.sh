#!/bin/bash
# Builds the images of operator and hub for each architecture, with what they are made of (CycloneDX) and how (SLSA), into
# target/images. Built again from the same commit they have the same digests.
#
#   REGISTRY=registry.example.org/backup   pushes them there, as spoke:vX and hub:vX
#   ARCHS="amd64 arm64"                    those that the toolchain can unless given
#   TAG=v0.1.0                             the version of Cargo.toml unless given
#   PUSH_OPTIONS=--tls-verify=false        for a registry without TLS
set -euo pipefail
cd "$(dirname "$0")/../.."

fail() { echo "images: $*" >&2; exit 1; }
say() { echo "[images] $*"; }

version=$(sed -n '/^\[workspace.package\]/,/^\[/s/^version = "\(.*\)"/\1/p' Cargo.toml)
TAG=${TAG:-v$version}
REGISTRY=${REGISTRY:-}
out=$PWD/target/images
# Of the commit: the same for whoever builds it.
export SOURCE_DATE_EPOCH=${SOURCE_DATE_EPOCH:-$(git log -1 --format=%ct)}
# MiB that a node may have to pull.
declare -A limit=([spoke]=60 [hub]=25)

triple() { case $1 in amd64) echo x86_64-unknown-linux-gnu ;; arm64) echo aarch64-unknown-linux-gnu ;; *) fail "architecture $1 is not known: amd64, arm64" ;; esac; }
multiarch() { triple "$1" | sed 's/-unknown//'; }
native=$(dpkg --print-architecture)

# What is missing for an architecture; nothing if it can be built.
missing() {
  local target cc
  target=$(triple "$1")
  cc=$(multiarch "$1")-gcc
  rustc --print target-libdir --target "$target" 2>/dev/null | xargs -I{} test -d {} || echo "rustup target add $target"
  [ "$1" = "$native" ] || command -v "$cc" >/dev/null || echo "apt-get install gcc-$(multiarch "$1" | tr _ -) libc6-dev-$1-cross"
}
if [ -z "${ARCHS:-}" ]; then
  ARCHS=
  for arch in amd64 arm64; do
    lacks=$(missing $arch)
    if [ -z "$lacks" ]; then ARCHS+=" $arch"; else say "no image for $arch; to have one: ${lacks//$'\n'/; }"; fi
  done
else
  for arch in $ARCHS; do
    lacks=$(missing "$arch")
    [ -z "$lacks" ] || fail "$arch cannot be built here; first: ${lacks//$'\n'/; }"
  done
fi
[ -n "${ARCHS// /}" ] || fail "no architecture can be built here"
for tool in buildah go cargo; do command -v $tool >/dev/null || fail "$tool is missing (tests/bootstrap.sh installs what can be had by apt)"; done
# For the image of the operator: asked for here, not when all has been compiled.
command -v readelf >/dev/null || fail "readelf is missing: apt-get install binutils"
case " $ARCHS " in *" $native "*) [ -x /usr/bin/ssh ] || fail "/usr/bin/ssh is missing, which is in the image: apt-get install openssh-client" ;; esac
# The project's own program that writes what images are made of, with the features of all others. Built without the time of
# the commit, as everywhere else: with another environment cargo builds all that has C in it anew.
env -u SOURCE_DATE_EPOCH cargo build -q --workspace --bins
release=target/${CARGO_BUILD_TARGET:+$CARGO_BUILD_TARGET/}debug/release

# Binaries without a trace of where they were built.
binaries() {
  local target cc variable options=()
  target=$(triple "$1")
  variable=$(echo "$target" | tr 'a-z-' 'A-Z_')
  cc=$(multiarch "$1")-gcc
  [ "$1" = "$native" ] && cc=cc
  # Pages of a node's kernel may be larger than those of this machine: 64 KiB on some arm64, where jemalloc made for less ends.
  [ "$1" != arm64 ] || options+=(JEMALLOC_SYS_WITH_LG_PAGE=16)
  env "${options[@]}" "CARGO_TARGET_${variable}_RUSTFLAGS=-C target-feature=+crt-static --remap-path-prefix=$PWD=/src --remap-path-prefix=${CARGO_HOME:-$HOME/.cargo}=/cargo" \
    "CARGO_TARGET_${variable}_LINKER=$cc" "CC_${target//-/_}=$cc" \
    cargo build --release --locked --target "$target" --target-dir "target/images/cargo" -p spoke -p hub -p cli --bins \
    --features spoke/jemalloc,hub/jemalloc
}

# With the tag of restic's own releases, without which it is half as large again.
restic() { (cd tests/tools/restic && CGO_ENABLED=0 GOOS=linux GOARCH=$1 GOTOOLCHAIN=local GOFLAGS=-mod=readonly \
  go build -trimpath -buildvcs=false -tags disable_grpc_modules -ldflags "-s -w" -o "$2" github.com/restic/restic/cmd/restic); }

# ssh of Debian for SFTP repositories, with its libraries: this machine's, or out of the packages of the other architecture.
ssh_into() {
  local arch=$1 root=$2 from=/ file
  if [ "$arch" != "$native" ]; then
    from=$out/debian-$arch
    packages "$arch" "$from"
  fi
  install -D -m 0755 "$from/usr/bin/ssh" "$root/usr/bin/ssh"
  libraries "$arch" "$from" "$from/usr/bin/ssh" | sort -u >"$out/libraries"
  while read -r file; do install -D -m 0755 "$from/$file" "$root/$file"; done <"$out/libraries"
  # For the list of what an image is made of: package and version.
  if [ "$arch" = "$native" ]; then
    # A path may have been installed before /lib became a link to /usr/lib; dpkg knows one of the two.
    { echo openssh-client; { sed 's,^,/usr,' "$out/libraries"; cat "$out/libraries"; } | { xargs dpkg-query -S 2>/dev/null || true; } | cut -d: -f1; } | sort -u |
      xargs dpkg-query -W -f '${Package} ${Version}\n' | sort -u >"$out/debian-$arch.list"
  else
    # Of the packages that were fetched, those of which something is in the image.
    local names
    names=$({ echo ssh; sed 's,.*/,,' "$out/libraries"; } | sed 's,[.+],\\&,g' | sort -u | paste -sd'|')
    for file in "$out/apt-$arch/cache/archives"/*.deb; do
      if dpkg-deb -c "$file" | grep -E "/(bin|lib[^ ]*)/($names)( |$)" >/dev/null; then
        dpkg-deb -W --showformat '${Package} ${Version}\n' "$file"
      fi
    done | sort -u >"$out/debian-$arch.list"
  fi
}

# Paths of a program's loader and libraries, found as the loader finds them.
libraries() {
  local arch=$1 from=$2 program=$3 name dir interpreter
  interpreter=$(readelf -l "$program" | sed -n 's/.*program interpreter: \(.*\)\]/\1/p')
  [ -z "$interpreter" ] || echo "$interpreter"
  for name in $(readelf -d "$program" | sed -n 's/.*(NEEDED).*\[\(.*\)\]/\1/p'); do
    for dir in "lib/$(multiarch "$arch")" "usr/lib/$(multiarch "$arch")" lib64 lib; do
      if [ -e "$from/$dir/$name" ]; then
        case " ${seen:-} " in *" $name "*) ;; *)
          echo "/$dir/$name"
          seen="${seen:-} $name" libraries "$arch" "$from" "$from/$dir/$name"
        esac
        continue 2
      fi
    done
    fail "$name, which ssh needs, is not in the packages for $arch"
  done
}

packages() {
  local arch=$1 to=$2 state=$out/apt-$1
  [ -e "$to/.done" ] && return
  rm -rf "$to" "$state" && mkdir -p "$to" "$state/lists/partial" "$state/cache/archives/partial" && : >"$state/status"
  local options=(-o "APT::Architecture=$arch" -o "APT::Architectures::=$arch" -o "Dir::State=$state" -o "Dir::State::status=$state/status"
    -o "Dir::Cache=$state/cache" -o APT::Sandbox::User=root)
  apt-get "${options[@]}" update -qq
  apt-get "${options[@]}" install -y -qq --no-install-recommends --download-only openssh-client >/dev/null
  for file in "$state"/cache/archives/*.deb; do dpkg-deb -x "$file" "$to"; done
  # /lib of packages that are older than the merge of /usr.
  touch "$to/.done"
}

root_of() {
  local image=$1 arch=$2 root=$3 built
  built=target/images/cargo/$(triple "$arch")/release
  mkdir -p "$root/usr/bin" "$root/tmp" "$root/etc/ssl/certs" && chmod 1777 "$root/tmp"
  install -m 0755 "$built/fleet-$image" "$root/usr/bin/fleet-$image"
  install -m 0644 /etc/ssl/certs/ca-certificates.crt "$root/etc/ssl/certs/ca-certificates.crt"
  printf 'root:x:0:0:root:/root:/sbin/nologin\nnobody:x:65534:65534:nobody:/:/sbin/nologin\n' >"$root/etc/passwd"
  printf 'root:x:0:\nnobody:x:65534:\n' >"$root/etc/group"
  if [ "$image" = spoke ]; then
    # As deploy/Dockerfile.spoke: ssh ends at once where its user is unknown; with the zeros restic still does not know it.
    echo 'restic:x:065532:065532::/tmp:/sbin/nologin' >>"$root/etc/passwd"
    install -m 0755 "$out/restic-$arch" "$root/usr/bin/restic"
    ssh_into "$arch" "$root"
  fi
}

storage() { buildah --root "$out/storage/root" --runroot "$out/storage/run" --storage-driver=vfs "$@"; }

image() {
  local image=$1 arch=$2 context entry
  context=$(mktemp -d "$out/context.XXXXXX")
  root_of "$image" "$arch" "$context/root"
  entry=/usr/bin/fleet-$image
  # The same for each build: the layer's times, and its order.
  find "$context" -print0 | xargs -0 touch -h -d "@$SOURCE_DATE_EPOCH"
  { cat deploy/images/Dockerfile; echo "ENTRYPOINT [\"$entry\"]"
    # As deploy/Dockerfile.spoke.
    [ "$image" = hub ] || echo 'ENV _RJEM_MALLOC_CONF=narenas:1,dirty_decay_ms:1000,muzzy_decay_ms:0'
    echo "LABEL org.opencontainers.image.version=$TAG org.opencontainers.image.revision=$(git rev-parse HEAD) org.opencontainers.image.licenses=Apache-2.0"
  } >"$context/Dockerfile"
  storage bud --quiet --isolation=chroot --format=oci --arch "$arch" --os linux --timestamp "$SOURCE_DATE_EPOCH" \
    --manifest "$image:$TAG" "$context" >/dev/null
  local unpacked pulled
  unpacked=$(du -sb --apparent-size "$context/root" | cut -f1)
  pulled=$(tar -C "$context/root" -cf - . | gzip | wc -c)
  rm -rf "$context"
  say "$image $arch: $((pulled / 1048576)) MiB to pull, $((unpacked / 1048576)) MiB unpacked"
  [ $((pulled / 1048576)) -lt "${limit[$image]}" ] || fail "$image for $arch is $((pulled / 1048576)) MiB to pull, not below ${limit[$image]}"
}

# Of earlier builds nothing is left to be taken for one of this: deploy/release.sh takes what the list names.
mkdir -p "$out" && rm -f "$out/built" "$out"/*.cdx.json "$out"/*.provenance.json "$out"/*.digest
for image in spoke hub; do storage manifest rm "$image:$TAG" >/dev/null 2>&1 || true; storage manifest create "$image:$TAG" >/dev/null; done
for arch in $ARCHS; do
  say "binaries for $arch"
  binaries "$arch"
  restic "$arch" "$out/restic-$arch"
  image spoke "$arch"
  image hub "$arch"
done
: >"$out/digests"
for image in spoke hub; do
  rm -rf "${out:?}/$image"
  storage manifest push --quiet --all --format oci --digestfile "$out/$image.digest" "$image:$TAG" "oci:$out/$image:$TAG" >/dev/null
  echo "$image $(cat "$out/$image.digest")" >>"$out/digests"
done
ARCHS=$ARCHS $release about "$out" "$TAG"
for arch in $ARCHS; do echo "$arch target/images/cargo/$(triple "$arch")/release"; done >"$out/built"
cat "$out/digests"
if [ -n "$REGISTRY" ]; then
  for image in spoke hub; do
    # shellcheck disable=SC2086
    storage manifest push --quiet --all --format oci ${PUSH_OPTIONS:-} "$image:$TAG" "docker://$REGISTRY/$image:$TAG" >/dev/null
    say "pushed $REGISTRY/$image:$TAG@$(cat "$out/$image.digest")"
  done
fi
