//! A person pauses all maintenance: no lease is granted until it is resumed. What holds one goes on, and so do backups.

use std::sync::Arc;

use proto::text::{LONGEST, clean};
use tonic::Status;
use tracing::info;

use super::keeper::Keeper;
use super::people::unavailable;
use crate::now as wall_clock;
use crate::store::StoredDecision;
use crate::store::pause::Pause;

impl Keeper {
    /// Pauses for a reason, or resumes.
    pub(super) async fn pause(&mut self, reason: Option<String>, who: &Arc<str>) -> Result<(), Status> {
        let before = self.hub.paused();
        let pause = match reason {
            Some(mut reason) => {
                clean(&mut reason, LONGEST);
                if reason.trim().is_empty() {
                    return Err(Status::invalid_argument(
                        "a pause needs a reason: those who wait are shown it",
                    ));
                }
                Some(Pause {
                    // Paused again: for as long as before, with the new reason.
                    since: before.as_ref().map_or_else(wall_clock, |pause| pause.since),
                    who: who.to_string(),
                    reason,
                })
            }
            None if before.is_none() => {
                return Err(Status::failed_precondition("maintenance is not paused"));
            }
            None => None,
        };
        let shown = |pause: &Option<Pause>| pause.as_ref().map_or_else(String::new, |p| p.reason.clone());
        let decision = StoredDecision {
            at: wall_clock(),
            who: who.to_string(),
            what: if pause.is_some() { "pause" } else { "resume" }.to_owned(),
            subject: "maintenance of the fleet".to_owned(),
            before: shown(&before),
            after: shown(&pause),
            ..StoredDecision::default()
        };
        if let Err(error) = self.store.save_pause(pause.clone(), decision).await {
            let status = unavailable(&error);
            self.failed(error, "a pause could not be kept");
            return Err(status);
        }
        info!(by = %who, paused = pause.is_some(), "maintenance of the fleet");
        let resumed = pause.is_none();
        self.hub.set_paused(pause);
        if resumed {
            self.retry_blocked().await;
        }
        Ok(())
    }
}
