#!/bin/bash
# Everything that needs no clusters. Unit tests run beside the tests of whole programs: both wait more than they compute.
# Usage: tests/fast.sh
set -uo pipefail
cd "$(dirname "$0")/.."
log=target/unit-tests.log

cargo test --workspace --no-run || exit
cargo test --workspace --lib --bins >"$log" 2>&1 &
units=$!
cargo test --workspace --test '*' -- --test-threads 4
others=$?
wait $units
units=$?
# A test that is well is one of a thousand lines that nobody reads.
if [ $units -eq 0 ]; then grep -E '^(     Running|test result)' "$log"; else cat "$log"; fi
[ $units -eq 0 ] && [ $others -eq 0 ] && cargo test --workspace --doc
