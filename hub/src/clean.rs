//! Text of spokes as it enters the hub: no control characters, bounded. Terminals, logs and pages show it.

use proto::plan::is_id;
use proto::text::{LONGEST, clean};
use proto::v1::object_state::Body;
use proto::v1::{
    BackupState, ClaimsReport, CollectorReport, Condition, Hello, LeaseAsk, ObjectState, OperationOutcome,
    PolicyState, RepositoryState, ResticLock, RestoreState, RetentionPolicySpec, RunProgress,
};

/// Longest name: Kubernetes' own bound on names.
pub const NAME: usize = 253;
/// Most hosts in the figures of a repository, and most sources of its snapshots.
const HOSTS: usize = 100;
const SOURCES: usize = 2_000;
/// Most claims, and most namespaces, that a cluster reports one by one.
const CLAIMS: usize = 2_000;

/// A resource. Selectors and keep rules are left as they are: the rules' own parser judges them.
pub fn object(object: &mut ObjectState) {
    let ObjectState {
        namespace,
        name,
        owner,
        ..
    } = object;
    all([namespace, name, owner], NAME);
    for condition in &mut object.conditions {
        let Condition {
            r#type,
            status,
            reason,
            message,
            ..
        } = condition;
        all([r#type, status, reason, message], LONGEST);
    }
    match &mut object.body {
        Some(Body::Repository(body)) => repository(body),
        Some(Body::Backup(body)) => backup(body),
        Some(Body::Policy(body)) => policy(body),
        Some(Body::Restore(body)) => restore(body),
        None => {}
    }
}

fn all<const N: usize>(texts: [&mut String; N], longest: usize) {
    texts.into_iter().for_each(|text| clean(text, longest));
}

fn progress(progress: Option<&mut RunProgress>) {
    if let Some(RunProgress { job, step, .. }) = progress {
        all([job, step], NAME);
    }
}

fn repository(repository: &mut RepositoryState) {
    progress(repository.progress.as_mut());
    clean(&mut repository.url, LONGEST);
    clean(&mut repository.damage, 2 * LONGEST);
    if !is_id(&repository.changed_id) {
        repository.changed_id.clear();
    }
    clean(&mut repository.last_check_result, NAME);
    if let Some(statistics) = &mut repository.statistics {
        for host in &mut statistics.hosts {
            clean(&mut host.host, NAME);
        }
    }
    for lock in &mut repository.locks {
        let ResticLock {
            id,
            user,
            host,
            kept_because,
            ..
        } = lock;
        all([id, user, host, kept_because], LONGEST);
    }
}

fn backup(backup: &mut BackupState) {
    progress(backup.progress.as_mut());
    let texts = [
        &mut backup.repository_namespace,
        &mut backup.repository_name,
        &mut backup.schedule,
        &mut backup.timezone,
        &mut backup.source,
    ];
    all(texts, NAME);
    if let Some(run) = &mut backup.last_run {
        all([&mut run.reason, &mut run.snapshot_id], NAME);
        clean(&mut run.message, LONGEST);
    }
}

fn policy(policy: &mut PolicyState) {
    progress(policy.progress.as_mut());
    let texts = [
        &mut policy.repository_namespace,
        &mut policy.repository_name,
        &mut policy.schedule,
        &mut policy.last_result,
    ];
    all(texts, NAME);
    if let Some(RetentionPolicySpec { unclear, .. }) = &mut policy.spec {
        clean(unclear, LONGEST);
    }
}

fn restore(restore: &mut RestoreState) {
    progress(restore.progress.as_mut());
    let texts = [
        &mut restore.repository_namespace,
        &mut restore.repository_name,
        &mut restore.phase,
        &mut restore.snapshot_id,
        &mut restore.target,
    ];
    all(texts, NAME);
}

/// What a collector reports of a repository.
pub fn report(report: &mut CollectorReport) {
    if let Some(statistics) = &mut report.statistics {
        statistics.hosts.truncate(HOSTS);
        for host in &mut statistics.hosts {
            clean(&mut host.host, NAME);
        }
    }
    report.sources.truncate(SOURCES);
    for source in &mut report.sources {
        all([&mut source.cluster, &mut source.host], NAME);
        clean(&mut source.backup, 2 * NAME);
    }
}

/// The claims of a cluster.
pub fn claims(report: &mut ClaimsReport) {
    report.cut |= report.namespaces.len() > CLAIMS || report.open.len() > CLAIMS;
    report.namespaces.truncate(CLAIMS);
    report.open.truncate(CLAIMS);
    for of in &mut report.namespaces {
        clean(&mut of.namespace, NAME);
    }
    for claim in &mut report.open {
        all([&mut claim.namespace, &mut claim.name], NAME);
        all([&mut claim.exclusion, &mut claim.exclusion_fault], LONGEST);
    }
}

/// What a spoke reports about itself.
pub fn hello(hello: &mut Hello) {
    for text in [
        &mut hello.incarnation,
        &mut hello.version,
        &mut hello.kubernetes_version,
        &mut hello.cluster_uid,
        &mut hello.hub_incarnation,
    ] {
        clean(text, NAME);
    }
}

/// What people read of a question.
pub fn ask(ask: &mut LeaseAsk) {
    clean(&mut ask.subject, NAME);
}

/// What became of an operation.
pub fn outcome(outcome: &mut OperationOutcome) {
    for text in [&mut outcome.result, &mut outcome.reason, &mut outcome.plan] {
        clean(text, NAME);
    }
    clean(&mut outcome.message, 2 * LONGEST);
    for list in [
        &mut outcome.unmatched,
        &mut outcome.policies,
        &mut outcome.removed_locks,
        &mut outcome.shown,
        &mut outcome.broken_packs,
    ] {
        list.truncate(4096);
        list.iter_mut().for_each(|text| clean(text, 4 * NAME));
    }
    outcome.matched.truncate(4096);
    if outcome.left.len() > 4096 {
        proto::plan::cut(&mut outcome.left, 4096);
    }
    let keys = outcome.matched.iter_mut().chain(&mut outcome.left);
    keys.for_each(|entry| clean(&mut entry.key, 4 * NAME));
    outcome.faults.truncate(4096);
    for fault in &mut outcome.faults {
        clean(&mut fault.source, 4 * NAME);
        clean(&mut fault.text, LONGEST);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_spoke_tells_moves_no_cursor() {
        let evil = "x\u{1b}[2J\u{7}";
        let condition = Condition {
            message: evil.to_owned(),
            ..Condition::default()
        };
        let body = RepositoryState {
            url: evil.to_owned(),
            progress: Some(RunProgress {
                step: evil.to_owned(),
                ..RunProgress::default()
            }),
            ..RepositoryState::default()
        };
        let mut state = ObjectState {
            name: evil.to_owned(),
            conditions: vec![condition],
            body: Some(Body::Repository(body)),
            ..ObjectState::default()
        };
        object(&mut state);
        assert!(!format!("{state:?}").contains("\\u{1b}"), "{state:?}");
        let mut question = LeaseAsk {
            subject: evil.to_owned(),
            ..LeaseAsk::default()
        };
        ask(&mut question);
        assert_eq!(question.subject, "x?[2J?");
    }

    #[test]
    fn what_a_run_left_is_bounded_and_moves_no_cursor() {
        let entry = proto::v1::Baseline {
            key: "x\u{1b}[2J".to_owned(),
            left: 1,
        };
        let mut told = OperationOutcome {
            matched: vec![entry.clone(); 5000],
            left: vec![entry; 5000],
            ..OperationOutcome::default()
        };
        outcome(&mut told);
        assert_eq!(
            (told.matched.len(), told.matched[0].key.as_str()),
            (4096, "x?[2J")
        );
        assert!(proto::plan::is_cut(&told.left) && told.left[1].key == "x?[2J");
    }
}
