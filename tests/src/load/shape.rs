//! What a simulated fleet looks like: a function of its size and of the time at which it was made.

use prost::Message as _;
use proto::digest::{Digest, object_hash};
use proto::time::from_unix_millis;
use proto::v1::object_state::Body;
use proto::v1::{
    BackupResult, BackupRun, BackupState, Condition, ObjectState, ObjectUpdate, PolicyState, RepositoryState,
    RepositoryStatistics, RetentionPolicySpec, RetentionRule,
};

const MINUTE: i64 = 60_000;
const DAY: i64 = 24 * 60 * MINUTE;
/// Clusters that share one repository.
const SHARE: usize = 10;
/// Resources of a cluster that are no backups: two repositories and a policy.
const OTHERS: usize = 3;
/// Namespaces of a cluster.
const TEAMS: usize = 20;

/// A fleet.
#[derive(Clone, Copy, Debug)]
pub struct Shape {
    pub clusters: usize,
    /// Resources of each cluster; all but three are backups.
    pub resources: usize,
    /// When it was made, in milliseconds since 1970.
    pub made: i64,
}

/// Name of a cluster.
#[must_use]
pub fn name(cluster: usize) -> String {
    format!("cluster-{cluster:05}")
}

/// restic id of the repository that a cluster shares with nine others.
#[must_use]
pub fn shared_id(cluster: usize) -> String {
    format!("{:064x}", 0xa000_0000_usize + cluster / SHARE)
}

fn own_id(cluster: usize) -> String {
    format!("{:064x}", 0xb000_0000_usize + cluster)
}

impl Shape {
    /// Backups of one cluster.
    #[must_use]
    pub fn backups(&self) -> usize {
        self.resources.saturating_sub(OTHERS)
    }

    /// All resources of a cluster, as its spoke encodes them.
    #[must_use]
    pub fn inventory(&self, cluster: usize) -> Vec<ObjectUpdate> {
        let mut all: Vec<ObjectUpdate> = (0..self.backups())
            .map(|backup| self.backup(cluster, backup, 0))
            .collect();
        all.push(self.repository(cluster, "nas", shared_id(cluster)));
        all.push(self.repository(cluster, "own", own_id(cluster)));
        all.push(policy(cluster));
        all
    }

    /// Digest and number of an inventory.
    #[must_use]
    pub fn digest(updates: &[ObjectUpdate]) -> (Digest, u64) {
        let mut digest = Digest::default();
        for update in updates {
            digest.add(&object_hash(&update.uid, &update.state));
        }
        (digest, updates.len() as u64)
    }

    /// One backup. Each version is another state.
    #[must_use]
    pub fn backup(&self, cluster: usize, backup: usize, version: u64) -> ObjectUpdate {
        let number = cluster * self.backups() + backup;
        let (hour, minute) = (number * 7 % 24, number * 13 % 60);
        // The last planned run before the fleet was made.
        let planned = i64::try_from(hour * 60 + minute).unwrap_or_default() * MINUTE;
        let days = (self.made - planned - MINUTE).div_euclid(DAY);
        let (result, age) = match number % 1000 {
            0..10 => (BackupResult::Failed, 0),
            10..20 => (BackupResult::PartiallyFailed, 0),
            20..25 => (BackupResult::Succeeded, 3 * DAY),
            _ => (BackupResult::Succeeded, 0),
        };
        let began = days * DAY + planned - age;
        let ended = began + 4 * MINUTE;
        let failed = result == BackupResult::Failed;
        let success = if failed { began - DAY } else { ended };
        let left = if failed {
            String::new()
        } else {
            format!("{number:064x}")
        };
        let (reason, message) = match result {
            BackupResult::Failed => (
                "RepositoryLocked",
                format!("locked by host backup-{}", number % 7),
            ),
            BackupResult::PartiallyFailed => ("FilesUnreadable", "4 files could not be read".to_owned()),
            _ => ("", String::new()),
        };
        let body = BackupState {
            repository_name: if backup.is_multiple_of(2) { "nas" } else { "own" }.to_owned(),
            restic_id: if backup.is_multiple_of(2) {
                shared_id(cluster)
            } else {
                own_id(cluster)
            },
            schedule: format!("{minute} {hour} * * *"),
            timezone: "Etc/UTC".to_owned(),
            suspended: (25..40).contains(&(number % 1000)),
            last_run: Some(BackupRun {
                started: Some(from_unix_millis(began)),
                finished: Some(from_unix_millis(ended)),
                result: result.into(),
                reason: reason.to_owned(),
                message,
                snapshot_id: left,
                bytes_added: 1_000_000 + version,
                bytes_processed: 40_000_000 + number as u64,
                files_processed: 2_000,
            }),
            last_success: Some(from_unix_millis(success)),
            next_run: Some(from_unix_millis(began + age + DAY)),
            runs_total: 30 + version,
            runs_succeeded: 29 + version,
            runs_failed: 1,
            source: format!("pvc/data-{backup}"),
            ..BackupState::default()
        };
        let place = (
            format!("team-{:02}", backup % TEAMS),
            format!("backup-{backup:03}"),
        );
        self.update(cluster, 1 + backup, place, Body::Backup(body))
    }

    fn repository(&self, cluster: usize, name: &str, restic_id: String) -> ObjectUpdate {
        let body = RepositoryState {
            url: format!("s3:https://storage.example.org/{name}-{restic_id:.8}"),
            restic_id,
            statistics: Some(RepositoryStatistics {
                as_of: Some(from_unix_millis(self.made - 10 * MINUTE)),
                stored_bytes: 5_000_000_000,
                uncompressed_bytes: 9_000_000_000,
                snapshots: 3_000,
                ..RepositoryStatistics::default()
            }),
            ..RepositoryState::default()
        };
        let number = if name == "nas" { 901 } else { 902 };
        let place = ("backup-system".to_owned(), name.to_owned());
        self.update(cluster, number, place, Body::Repository(body))
    }

    fn update(
        &self,
        cluster: usize,
        number: usize,
        (namespace, name): (String, String),
        body: Body,
    ) -> ObjectUpdate {
        let condition = |kind: &str, status: &str, reason: &str| Condition {
            r#type: kind.to_owned(),
            status: status.to_owned(),
            reason: reason.to_owned(),
            message: format!("{kind} is {status} since the last look of the operator"),
            last_transition: Some(from_unix_millis(self.made - DAY)),
        };
        let state = ObjectState {
            uid: format!("{cluster:08x}-0000-4000-8000-{number:012x}"),
            namespace,
            name,
            generation: 3,
            created: Some(from_unix_millis(self.made - 200 * DAY)),
            conditions: vec![
                condition("Ready", "True", "Reconciled"),
                condition("Progressing", "False", "Idle"),
                condition("Stalled", "False", "Idle"),
                condition("Degraded", "False", "Idle"),
            ],
            body: Some(body),
            // As long as that of a backup usually is.
            manifest: " ".repeat(500),
            generated: false,
            owner: String::new(),
        };
        ObjectUpdate {
            uid: state.uid.clone(),
            state: state.encode_to_vec(),
        }
    }
}

fn policy(cluster: usize) -> ObjectUpdate {
    let shape = Shape {
        clusters: 1,
        resources: OTHERS,
        made: 200 * DAY,
    };
    let body = PolicyState {
        repository_name: "nas".to_owned(),
        restic_id: shared_id(cluster),
        schedule: "30 3 * * *".to_owned(),
        spec: Some(RetentionPolicySpec {
            rules: vec![RetentionRule {
                keep_last: 30,
                ..RetentionRule::default()
            }],
            ..RetentionPolicySpec::default()
        }),
        last_result: "Applied".to_owned(),
        last_run: Some(from_unix_millis(199 * DAY)),
        ..PolicyState::default()
    };
    let place = ("backup-system".to_owned(), "nightly".to_owned());
    shape.update(cluster, 903, place, Body::Policy(body))
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test that panics has failed")]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn a_cluster_is_the_same_each_time_and_no_two_resources_are_alike() {
        let shape = Shape {
            clusters: 20,
            resources: 100,
            made: 1_795_000_000_000,
        };
        let one = shape.inventory(3);
        assert_eq!(one, shape.inventory(3));
        assert_eq!(one.len(), 100);
        let uids: HashSet<&str> = one.iter().map(|update| update.uid.as_str()).collect();
        assert_eq!(uids.len(), 100);
        assert_eq!(shared_id(3), shared_id(9));
        assert_ne!(shared_id(9), shared_id(10));
        assert_ne!(shape.backup(3, 5, 0).state, shape.backup(3, 5, 1).state);
        let bytes: usize = one.iter().map(|update| update.state.len()).sum();
        assert!((50_000..120_000).contains(&bytes), "{bytes}");
    }
}
