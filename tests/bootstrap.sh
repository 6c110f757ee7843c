#!/bin/bash
# Installs what the test bed needs on a bare Debian machine, and says in a sentence what it cannot install.
set -euo pipefail

fail() { echo "bootstrap: $*" >&2; exit 1; }

[ "$(id -u)" = 0 ] || fail "the test bed makes network namespaces and mounts: run it as root"
command -v cargo >/dev/null || fail "cargo is missing: install Rust with rustup (https://rustup.rs)"
command -v go >/dev/null || fail "go is missing: install Go 1.26 or later"
[ "$(awk '/MemAvailable/ {print int($2 / 1024)}' /proc/meminfo)" -ge 4096 ] || fail "less than 4 GiB of memory is free: two clusters need that"

packages=()
need() { command -v "$1" >/dev/null || [ -e "$1" ] || packages+=("$2"); }
need containerd containerd
need runc runc
need /usr/lib/cni/bridge containernetworking-plugins
need nft nftables
need ip iproute2
need /bin/busybox busybox-static
need openssl openssl
need buildah buildah
need curl curl
need strip binutils
need cc gcc
need pgrep procps
need node nodejs
need npm npm
need ssh openssh-client
need rclone rclone
need /usr/sbin/sshd openssh-server
need promtool prometheus
need prometheus-pushgateway prometheus-pushgateway
need /usr/lib/openssh/sftp-server openssh-sftp-server
if [ ${#packages[@]} -gt 0 ]; then
  echo "[testbed] installing ${packages[*]}"
  export DEBIAN_FRONTEND=noninteractive
  apt-get update -qq || fail "apt-get update failed: no package mirror can be reached"
  apt-get install -y -qq --no-install-recommends "${packages[@]}" >/dev/null || fail "could not install ${packages[*]}"
fi
