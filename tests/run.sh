#!/bin/bash
# End-to-end tests on a bed of their own. What was there before is removed first, and everything afterwards.
set -euo pipefail
cd "$(dirname "$0")/.."
target=${CARGO_BUILD_TARGET:-$(rustc -vV | sed -n 's/^host: //p')}
testbed=target/$target/debug/testbed

finish() { "$testbed" down --name test; }
trap finish EXIT

"$testbed" up --name test --clusters a,b
cargo test -p tests --test e2e -- --ignored --test-threads 3 --skip locks::
# These cut clusters off and kill the hub, so they run alone, one after the other.
cargo test -p tests --test e2e -- --ignored --test-threads 1 locks::
