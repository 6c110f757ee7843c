//! How the resources of a cluster are: repositories, their Secrets, backups, policies. Pure.

use serde_json::Value;

use super::finding::{Finding, judge};
use super::install::RIGHTS;
use super::kube::Facts;
use crate::local;
use crate::objects::{condition, holds, is_true, items, place, said, text, unready};

/// Most objects that a sentence names.
const NAMED: usize = 5;
/// Why a resource waits for the hub, as its condition Waiting says it.
const LINK: [&str; 3] = [
    "ClusterNotJoined",
    "ClusterCertificateExpired",
    "ClusterNameDiffers",
];

/// All findings about the resources.
#[must_use]
pub fn findings(facts: &Facts) -> Vec<Finding> {
    vec![
        repositories(facts),
        secrets(facts),
        damage(facts),
        certificate(facts),
        backups(facts),
        waiting(facts),
        recent(facts),
        last_runs(facts),
        policies(facts),
        approvals(facts),
    ]
}

fn of<'a>(list: &'a Value, kind: &'a str) -> impl Iterator<Item = &'a Value> {
    items(list).iter().filter(move |of| text(of, "/kind") == kind)
}

/// Names the first few of what is wrong, each with its reason.
fn several(wrong: &[String]) -> String {
    let mut shown: Vec<String> = wrong.iter().take(NAMED).cloned().collect();
    let more = wrong.len().saturating_sub(shown.len());
    if more > 0 {
        shown.push(format!("and {more} more"));
    }
    shown.join("; ")
}

/// Bad where something of a kind is wrong; a note where there is none of the kind.
fn all_of(
    id: &'static str,
    facts: &Facts,
    kind: &str,
    well: &str,
    hint: &str,
    wrong: impl Fn(&Value) -> Option<String>,
) -> Finding {
    judge(id, &facts.objects, RIGHTS, |list| {
        let count = of(list, kind).count();
        let wrong: Vec<String> = of(list, kind)
            .filter_map(|object| Some(format!("{}: {}", place(object), wrong(object)?)))
            .collect();
        match (count, wrong.is_empty()) {
            (0, _) => Finding::note(id, format!("there is no {kind}"), "README.md shows one"),
            (_, true) => Finding::good(id, format!("{well}: {count}")),
            (_, false) => Finding::bad(id, several(&wrong), hint),
        }
    })
}

fn repositories(facts: &Facts) -> Finding {
    let hint = "fleet why repo NAME, or kubectl describe rr";
    all_of(
        "repositories",
        facts,
        "ResticRepository",
        "repositories can be opened",
        hint,
        unready,
    )
}

fn secrets(facts: &Facts) -> Finding {
    const ID: &str = "repository-secrets";
    judge(ID, &facts.secrets, RIGHTS, |names| {
        let hint = "create the Secret with RESTIC_PASSWORD and the keys of the storage (docs/backends.md)";
        all_of(
            ID,
            facts,
            "ResticRepository",
            "repositories have their Secret",
            hint,
            |object| {
                let secret = text(object, "/spec/credentialsSecretRef/name");
                let namespace = crate::objects::namespace(object);
                let wanted = format!("{namespace}/{secret}");
                (!names.contains(&wanted))
                    .then(|| format!("Secret {secret} does not exist in namespace {namespace}"))
            },
        )
    })
}

fn damage(facts: &Facts) -> Finding {
    let hint = "docs/maintenance.md#integrity-checks: mend the repository, then start a check";
    all_of(
        "repository-damage",
        facts,
        "ResticRepository",
        "repositories without known damage",
        hint,
        |object| {
            let degraded = holds(object, "Degraded")?;
            Some(said(degraded))
        },
    )
}

fn certificate(facts: &Facts) -> Finding {
    let hint = "fleet clusters join NAME, and apply what it prints (docs/enrolment.md)";
    all_of(
        "link-certificate",
        facts,
        "ResticRepository",
        "repositories see no fault of this cluster's certificate",
        hint,
        |object| {
            let waiting = holds(object, "Waiting")?;
            LINK.contains(&text(waiting, "/reason")).then(|| said(waiting))
        },
    )
}

fn backups(facts: &Facts) -> Finding {
    let hint = "fleet why CLUSTER/NAMESPACE/NAME, or kubectl describe rb";
    all_of(
        "backups",
        facts,
        "ResticBackup",
        "backups are ready",
        hint,
        unready,
    )
}

fn waiting(facts: &Facts) -> Finding {
    let hint = "the message names what to do; it goes on by itself";
    all_of(
        "runs-start",
        facts,
        "ResticBackup",
        "backups have no run that cannot start",
        hint,
        |object| {
            let waiting = holds(object, "Waiting")?;
            // A place in a queue is meant.
            (text(waiting, "/reason") != "Parked").then(|| said(waiting))
        },
    )
}

fn recent(facts: &Facts) -> Finding {
    let hint = "fleet why CLUSTER/NAMESPACE/NAME; fleet backups run CLUSTER/NAMESPACE/NAME";
    all_of(
        "backups-recent",
        facts,
        "ResticBackup",
        "backups are not overdue",
        hint,
        |object| {
            if is_true(object, "/spec/suspend") {
                return None;
            }
            let unknown = || "whether it is overdue is not known yet".to_owned();
            let judged = condition(object, "Stale").filter(|of| text(of, "/status") != "Unknown");
            // An operator that does not run leaves its last word behind, so its forecast counts as well.
            local::judge::late(object, facts.now()).or_else(|| judged.is_none().then(unknown))
        },
    )
}

fn last_runs(facts: &Facts) -> Finding {
    let hint = "docs/conditions.md: results of runs";
    all_of(
        "last-runs",
        facts,
        "ResticBackup",
        "backups have not failed last",
        hint,
        |object| {
            let (state, why) = local::judge::last_run(object)?;
            Some(match state {
                "notready" => why,
                state => format!("{state}: {why}"),
            })
        },
    )
}

fn policies(facts: &Facts) -> Finding {
    let hint = "fleet why CLUSTER/NAMESPACE/NAME, or kubectl describe grp";
    all_of(
        "policies",
        facts,
        "GlobalRetentionPolicy",
        "retention policies are ready",
        hint,
        |object| unready(object).or_else(|| holds(object, "Degraded").map(said)),
    )
}

fn approvals(facts: &Facts) -> Finding {
    let hint = "fleet plan list, fleet plan show, fleet plan approve";
    all_of(
        "approvals",
        facts,
        "GlobalRetentionPolicy",
        "retention policies wait for nobody",
        hint,
        |object| holds(object, "ApprovalRequired").map(said),
    )
}

#[cfg(test)]
#[path = "resources_tests.rs"]
mod tests;
