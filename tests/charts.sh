#!/bin/bash
# The charts without clusters: helm lint, unit tests with every refusal, rules by promtool, pods and rights by kube-score and our
# own linter, and whether the manifests without Helm are what the charts say.
set -euo pipefail
cd "$(dirname "$0")/.."
target=${CARGO_BUILD_TARGET:-$(rustc -vV | sed -n 's/^host: //p')}
"target/$target/debug/testbed" build --charts
bin=.testbed/bin
for chart in spoke hub; do
  echo "== $chart"
  "$bin/helm" lint --strict --namespace restic-fleet-system "deploy/charts/$chart"
  "$bin/helm-unittest" --strict "deploy/charts/$chart"
  promtool check rules "deploy/charts/$chart/files/alerts.yaml"
done
(cd tests/alerts && promtool test rules alerts_test.yaml)
deploy/charts/render.sh --check
"target/$target/debug/crdgen" --check deploy
cargo test --workspace --test charts -- --ignored
