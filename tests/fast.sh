#!/bin/bash
# Everything that needs no clusters, in three rows beside each other: unit tests, programs that compute, and programs that mostly
# wait.
# Usage: tests/fast.sh
set -uo pipefail
cd "$(dirname "$0")/.."
mkdir -p target
built=target/built-tests.log units=target/unit-tests.log waiting=target/waiting-tests.log
waits=(hub_tests cli_tests crds_tests)

cargo test --workspace --no-run 2>&1 | tee "$built"
[ "${PIPESTATUS[0]}" -eq 0 ] || exit 1
beside=("${waits[@]/#/--test=}")
computing=()
for name in $(sed -nE 's|.*Executable tests/.*/deps/(.+)-[0-9a-f]+\).*|\1|p' "$built"); do
  [[ " ${waits[*]} " == *" $name "* ]] || computing+=("--test=$name")
done
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
