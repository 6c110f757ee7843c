#!/bin/bash
# End-to-end tests on a bed of their own. What was there before is removed first, and everything afterwards.
# Usage: tests/run.sh [test|long|faults|rights|backends|charts|upgrade|helm-upgrade]
set -euo pipefail
cd "$(dirname "$0")/.."
export FLEET_SUITE=${1:-test}
case $FLEET_SUITE in
test | long | faults | rights | backends | charts | upgrade | helm-upgrade) ;;
*) echo "usage: tests/run.sh [test|long|faults|rights|backends|charts|upgrade|helm-upgrade]" >&2; exit 2 ;;
esac
target=${CARGO_BUILD_TARGET:-$(rustc -vV | sed -n 's/^host: //p')}
testbed=target/$target/debug/testbed

# Each of these takes more than a minute and a half, mostly of waiting, and what they are about has a shorter test beside.
# They stand in `make long`, so that `make test` stays quick. The first run beside others, the second alone.
long=(
  alerts::backups:: alerts::repositories:: console:: many::no_run_begins progress::a_long_backup
  rights::a_backup_reads_only_what_changed rotation::
)
long_alone=(
  alerts::hub:: alerts::operator:: locks::check::a_damaged_pack locks::collector:: locks::left::locks_of_a_killed locks::many:: locks::restored::
  locks::alone::while_the_hub_is_away locks::alone::new_backups_hold locks::away:: locks::copied:: hooks::kills::restic_killed upgrade::
)
# Neither beside others nor in a suite of `make test`.
apart=(charts:: dashboard:: documented::fleet locks:: authority:: commands::cut:: backends:: api::afterwards:: hooks::kills:: upgrade:: alerts::operator:: alerts::hub:: versions::)

# What a test says when it fails is printed at once: a suite that is ended from outside says nothing at its end.
together() { cargo test --workspace --test e2e -- --ignored --nocapture --test-threads 4 "$@"; }
alone() { cargo test --workspace --test e2e -- --ignored --nocapture --test-threads 1 "$@"; }
# --skip before each argument.
without() { printf -- '--skip\n%s\n' "$@"; }

# A bed beside that of the suite, for the tests of `make test` that run alone: they mostly wait.
beside=alone
finish() {
  "$testbed" down --name "$FLEET_SUITE"
  [ "$FLEET_SUITE" != test ] || "$testbed" down --name $beside
}
trap finish EXIT

# These stop or kill the hub or the operator, replace its authority, pause the fleet, or hold locks, so they run one after the
# other. Of the faults in the middle of deleting that of every day is tried here, a hub and operators that are killed; of what
# can be killed around a hook the operator with the pod.
one_by_one() {
  mapfile -t skipped < <(without locks::long:: locks::failover:: a_cluster_that_is_cut_off \
    a_job_that_is_deleted_without_its_pods a_pod_that_was_paused "${long_alone[@]}")
  alone locks:: authority:: documented::fleet hooks::kills::operator_and_pod_killed "${skipped[@]}" || return
  if [ -e hub/ui/dist/site/index.html ] && command -v chromium >/dev/null; then
    alone dashboard::
  else
    echo "the dashboard was not built or Chromium is not installed: it is not tested on clusters (make ui, apt-get install chromium)"
  fi
}

"$testbed" build
"$testbed" up --name "$FLEET_SUITE" --clusters a,b
case $FLEET_SUITE in
test)
  "$testbed" up --name $beside --clusters a,b &
  others=$!
  code=0
  # Logins at a real issuer, which is a program of Node.js.
  if [ "$(node -p 'process.versions.node.split(".")[0]' 2>/dev/null || echo 0)" -ge 20 ]; then
    cargo test --workspace --test hub_tests oidc:: -- --ignored || code=$?
  else
    echo "the issuer needs Node.js 20 or later: logins at a real issuer are not tested (those at the tests' own are)"
  fi
  wait $others
  [ $code -eq 0 ] || exit $code
  (FLEET_SUITE=$beside one_by_one 2>&1 | sed -u "s/^/[$beside] /") &
  others=$!
  mapfile -t skipped < <(without "${apart[@]}" "${long[@]}")
  together "${skipped[@]}" || code=$?
  wait $others || code=$?
  exit $code
  ;;
long)
  FLEET_TEST_CASES=1000 cargo test --workspace --test spoke_tests oracle::
  together "${long[@]}"
  alone "${long_alone[@]}"
  ;;
rights)
  mapfile -t skipped < <(without "${apart[@]}")
  together "${skipped[@]}"
  alone locks::operations::
  # What all of these have left in logs and in the audit log of the API servers.
  alone api::afterwards::
  ;;
backends)
  # Azurite is a program of Node.js, and fake-gcs-server is built for these alone.
  cargo test --workspace --test e2e -- --ignored --nocapture --test-threads 2 backends::
  ;;
charts)
  # The first of these needs a bed without anything.
  "$testbed" build --charts
  alone charts::install::
  [ "${2:-}" = install ] || alone charts::dry_run:: charts::namespaces::
  ;;
upgrade | helm-upgrade)
  [ "$FLEET_SUITE" = upgrade ] || "$testbed" build --charts
  # Begins with the version before, which tests/previous.sh has made.
  : "${FLEET_PREVIOUS:?run make upgrade-test}"
  alone versions::
  ;;
faults)
  alone locks::faults:: locks::long:: locks::failover:: locks::restored:: locks::many:: locks::operations:: hooks::kills:: commands::cut::
  ;;
esac
