//! Alerts of the operator itself: these stop it or its hub, so the test runs alone.

use serde_json::json;
use tests::fleet::{self, SYSTEM};

use super::prometheus::Prometheus;
use crate::support::bed;

pub const ALERTS: &[&str] = &[
    "FleetNoLeader",
    "FleetHubDisconnected",
    "FleetClusterNameDiffers",
    "FleetCertificateMissing",
];

#[test]
#[ignore = "needs clusters: make long"]
fn alerts_of_the_operator_come_with_their_cause_and_end_with_its_mend() {
    let cluster = bed().cluster("b").unwrap();
    let prometheus = Prometheus::start(cluster.clone(), 19_193);
    for alert in ALERTS {
        prometheus.until_ended(alert, "", "");
    }

    bed().stop_hub().unwrap();
    prometheus.until_raised("FleetHubDisconnected", "", "");
    bed().start_hub().unwrap();
    prometheus.until_ended("FleetHubDisconnected", "", "");

    cluster.scale("fleet-spoke", 0).unwrap();
    prometheus.until_raised("FleetNoLeader", "", "");
    cluster.scale("fleet-spoke", 2).unwrap();
    prometheus.until_ended("FleetNoLeader", "", "");

    // Its token was used for the key that is gone with it.
    let identity = ["delete", "secret", "-n", SYSTEM, "fleet-spoke-identity"];
    cluster.kubectl(&identity).unwrap();
    cluster.scale("fleet-spoke", 0).unwrap();
    cluster.scale("fleet-spoke", 2).unwrap();
    prometheus.until_raised("FleetCertificateMissing", "", "");
    fleet::join(bed(), &cluster).unwrap();
    prometheus.until_ended("FleetCertificateMissing", "", "");

    let rename = |name: &str| {
        let named = json!({ "apiVersion": "v1", "kind": "ConfigMap", "data": { "cluster": name },
                            "metadata": { "name": "fleet-spoke", "namespace": SYSTEM } });
        cluster.apply(&named.to_string()).unwrap();
        let restart = ["rollout", "restart", "-n", SYSTEM, "deployment/fleet-spoke"];
        cluster.kubectl(&restart).unwrap();
        fleet::rollout(&cluster, "fleet-spoke").unwrap();
    };
    rename("another");
    prometheus.until_raised("FleetClusterNameDiffers", "", "");
    rename("b");
    prometheus.until_ended("FleetClusterNameDiffers", "", "");
}
