#!/bin/bash
# End-to-end tests on a bed of their own. What was there before is removed first, and everything afterwards.
# Usage: tests/run.sh [test|faults|rights|backends]
set -euo pipefail
cd "$(dirname "$0")/.."
export FLEET_SUITE=${1:-test}
case $FLEET_SUITE in
test | faults | rights | backends) ;;
*) echo "usage: tests/run.sh [test|faults|rights|backends]" >&2; exit 2 ;;
esac
target=${CARGO_BUILD_TARGET:-$(rustc -vV | sed -n 's/^host: //p')}
testbed=target/$target/debug/testbed

finish() { "$testbed" down --name "$FLEET_SUITE"; }
trap finish EXIT

"$testbed" up --name "$FLEET_SUITE" --clusters a,b
case $FLEET_SUITE in
test)
  # Logins at a real issuer, which is a program of Node.js.
  if [ "$(node -p 'process.versions.node.split(".")[0]' 2>/dev/null || echo 0)" -ge 20 ]; then
    cargo test --workspace --test oidc -- --ignored
  else
    echo "the issuer needs Node.js 20 or later: logins at a real issuer are not tested (those at the tests' own are)"
  fi
  cargo test -p tests --test e2e -- --ignored --test-threads 3 \
    --skip locks:: --skip commands::cut:: --skip backends:: --skip api::afterwards:: --skip hooks::kills:: --skip upgrade:: --skip alerts::operator:: --skip alerts::hub::
  # These stop or kill the hub or the operator, or hold locks, so they run alone, one after the other. Of the faults in the
  # middle of deleting that of every day is tried here, a hub and operators that are killed; of what can be killed around a
  # hook restic, and the operator with the pod.
  cargo test -p tests --test e2e -- --ignored --nocapture --test-threads 1 \
    locks:: upgrade:: hooks::kills::restic_killed hooks::kills::operator_and_pod_killed \
    --skip locks::long:: --skip locks::failover:: \
    --skip a_cluster_that_is_cut_off --skip a_job_that_is_deleted_without_its_pods --skip a_pod_that_was_paused
  ;;
rights)
  cargo test -p tests --test e2e -- --ignored --test-threads 3 \
    --skip locks:: --skip commands::cut:: --skip backends:: --skip api::afterwards:: --skip hooks::kills:: --skip upgrade:: --skip alerts::operator:: --skip alerts::hub::
  cargo test -p tests --test e2e -- --ignored --nocapture --test-threads 1 locks::operations::
  # What all of these have left in logs and in the audit log of the API servers.
  cargo test -p tests --test e2e -- --ignored --nocapture --test-threads 1 api::afterwards::
  ;;
backends)
  # Azurite is a program of Node.js, and fake-gcs-server is built for these alone.
  cargo test -p tests --test e2e -- --ignored --nocapture --test-threads 2 backends::
  ;;
faults)
  cargo test -p tests --test e2e -- --ignored --nocapture --test-threads 1 \
    locks::faults:: locks::long:: locks::failover:: locks::many:: locks::operations:: hooks::kills:: alerts::operator:: alerts::hub:: commands::cut::
  ;;
esac
