#!/bin/bash
# Everything that needs no clusters, in three rows beside each other: unit tests, programs that compute, and programs that mostly
# wait.
# Usage: tests/fast.sh
set -uo pipefail
cd "$(dirname "$0")/.."
mkdir -p target
units=target/unit-tests.log waiting=target/waiting-tests.log
waits=(hub_tests cli_tests crds_tests)

cargo test --workspace --no-run || exit
beside=("${waits[@]/#/--test=}")
computing=()
for name in $(cargo metadata --no-deps --format-version 1 | grep -oE '"kind":\["test"\],"crate_types":\["bin"\],"name":"[^"]+"' | cut -d'"' -f12); do
  [[ " ${waits[*]} " == *" $name "* ]] || computing+=("--test=$name")
done
[ ${#computing[@]} -gt 0 ] || { echo "cargo metadata names no test programs" >&2; exit 1; }
cargo test --workspace --lib --bins >"$units" 2>&1 &
first=$!
cargo test --workspace "${beside[@]}" -- --test-threads 4 >"$waiting" 2>&1 &
second=$!
cargo test --workspace "${computing[@]}" -- --test-threads 4
code=$?
for row in "$first $units" "$second $waiting"; do
  read -r process log <<<"$row"
  # A test that is well is one of a thousand lines that nobody reads.
  if wait "$process"; then grep -E '^(     Running|test result)' "$log"; else code=1; cat "$log"; fi
done
[ $code -eq 0 ] && cargo test --workspace --doc
