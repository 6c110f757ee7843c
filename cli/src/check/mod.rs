//! `fleet check`: whether everything that backups need is there and well. Each question has a deadline; what could not be
//! looked at is unknown.

mod bound;
mod finding;
#[cfg(test)]
mod fixtures;
mod hub;
mod install;
pub mod kube;
mod resources;
mod rights;
mod workloads;

use std::time::{Duration, Instant};

use jiff::Timestamp;

use self::finding::{Outcome, exit, table};
use crate::arguments::{Check, HubArguments, KubeArguments};
use crate::failure::{Failure, code};
use crate::kubectl::{self, Kubectl};
use crate::maintenance::print;
use crate::output::note;

pub use self::finding::{Finding, document};
pub use self::install::CLOCKS;
pub use self::kube::{GROUP, HUB, OPERATOR, objects};

/// Pause between two looks of `--wait`.
const AGAIN: Duration = Duration::from_secs(2);

/// Carries the command out.
pub async fn check(hub: &HubArguments, kube: &KubeArguments, arguments: &Check) -> Result<u8, Failure> {
    let start = Instant::now();
    let mut told = String::new();
    loop {
        let findings = look(hub, kube, &arguments.system_namespace).await?;
        let left = arguments.wait.and_then(|wait| wait.checked_sub(start.elapsed()));
        let code = exit(&findings);
        let (Some(left), false) = (left, code == 0) else {
            let late = arguments.wait.is_some() && code != 0;
            show(arguments, &findings);
            return Ok(if late { code::TIMEOUT } else { code });
        };
        // Only what has changed is said.
        let waits = blockers(&findings);
        if waits != told {
            note(&waits);
            told = waits;
        }
        tokio::time::sleep(AGAIN.min(left)).await;
    }
}

/// All findings, in the order of a way from this machine to the backups.
///
/// # Errors
/// When there is neither a cluster nor a hub to look at.
pub async fn look(hub: &HubArguments, kube: &KubeArguments, system: &str) -> Result<Vec<Finding>, Failure> {
    let by_kubectl = async {
        if !kubectl::is_there(kube) {
            return None;
        }
        let kubectl = Kubectl::new(kube).within(hub.timeout);
        Some(kube::look(&kubectl, system).await)
    };
    let (cluster, fleet) = tokio::join!(by_kubectl, hub::look(hub));
    if cluster.is_none() && fleet.is_none() {
        return Err(Failure::Usage(
            "there is neither a kubeconfig nor a login: give --kubeconfig, or log in: fleet login --help"
                .to_owned(),
        ));
    }
    let mut findings = Vec::new();
    match &cluster {
        Some(facts) => {
            findings.extend(install::findings(facts, system));
            findings.extend(resources::findings(facts));
        }
        None => findings.push(Finding::note(
            "cluster",
            "no cluster is looked at: there is no kubeconfig",
            "--kubeconfig FILE, --kube-context CONTEXT",
        )),
    }
    match &fleet {
        Some(facts) => findings.extend(hub::findings(facts, Timestamp::now())),
        None => findings.push(Finding::note(
            "hub",
            "no hub is looked at, and no other cluster: there is no login",
            "fleet login, or fleet hub init",
        )),
    }
    Ok(findings)
}

fn show(arguments: &Check, findings: &[Finding]) {
    let bad = findings
        .iter()
        .filter(|of| matches!(of.outcome, Outcome::Bad | Outcome::Unknown));
    print(
        arguments.output,
        &document(findings, Timestamp::now()),
        bad.map(|of| of.id.to_owned()),
        || table(findings, arguments.short),
    );
}

/// What is waited for, a line each.
fn blockers(findings: &[Finding]) -> String {
    let waits = findings
        .iter()
        .filter(|of| matches!(of.outcome, Outcome::Bad | Outcome::Unknown));
    let lines: Vec<String> = waits
        .map(|of| proto::text::cleaned(&format!("waiting: {}: {}", of.id, of.text)))
        .collect();
    lines.join("\n")
}
