//! Runs of backups that have ended, as states report them.

use proto::v1::BackupResult;

use super::Held;
use crate::Millis;
use crate::store::runs::StoredRun;

/// A clock of a cluster may be ahead by this much.
const CLOCKS: Millis = 10 * 60_000;

/// The run that a state reports and the one before it did not. A run of the future is none.
pub(super) fn ended(held: &Held, before: Option<&Held>, now: Millis) -> Option<StoredRun> {
    let backup = held.backup()?;
    let run = backup.last_run()?;
    let ended = run.finished()?;
    let known = before.and_then(|held| held.backup()?.last_run()?.finished());
    if run.result() == BackupResult::Unspecified || known == Some(ended) || ended > now + CLOCKS {
        return None;
    }
    let text = match run.why() {
        (reason, "") => reason.to_owned(),
        ("", message) => message.to_owned(),
        (reason, message) => format!("{reason}: {message}"),
    };
    Some(StoredRun {
        cluster: held.cluster.to_string(),
        namespace: held.namespace().to_owned(),
        name: held.name().to_owned(),
        ended,
        began: run.started(),
        result: run.result(),
        text,
        snapshot: run.snapshot(),
        added: run.bytes_added,
        restic_id: backup.restic_id().to_owned(),
        repository: backup.repository_name().to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use prost::Message as _;
    use proto::time::from_unix_millis;
    use proto::v1::{BackupRun, BackupState, ObjectState, object_state::Body};

    use super::*;

    fn held(finished: Option<Millis>, result: BackupResult) -> Held {
        let run = BackupRun {
            finished: finished.map(from_unix_millis),
            result: result.into(),
            reason: "Locked".to_owned(),
            ..BackupRun::default()
        };
        let state = ObjectState {
            name: "orders".to_owned(),
            body: Some(Body::Backup(BackupState {
                last_run: Some(run),
                ..BackupState::default()
            })),
            ..ObjectState::default()
        };
        let cluster: Arc<str> = "a".into();
        Held::new(&cluster, "u", &state.encode_to_vec(), None, 0)
    }

    #[test]
    fn a_run_is_new_when_it_ended_at_another_time() {
        let (first, failed) = (held(Some(1_000), BackupResult::Failed), BackupResult::Failed);
        let run = ended(&first, None, 5_000).unwrap();
        assert_eq!(
            (run.ended, run.result, run.text.as_str()),
            (1_000, failed, "Locked")
        );
        assert_eq!(ended(&first, Some(&first), 5_000), None);
        let second = held(Some(2_000), BackupResult::Succeeded);
        assert_eq!(ended(&second, Some(&first), 5_000).unwrap().ended, 2_000);
        for none in [
            held(None, failed),
            held(Some(2_000), BackupResult::Unspecified),
            held(Some(5_001 + CLOCKS), failed),
        ] {
            assert_eq!(ended(&none, Some(&first), 5_000), None);
        }
    }
}
