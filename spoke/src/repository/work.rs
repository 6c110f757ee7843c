//! What takes long: the look at a repository, its creation, and the look at its locks. Runs beside the actor.

use std::collections::BTreeSet;

use tracing::warn;

use super::answer::{Answer, Inputs};
use super::collect::{Collect, report};
use super::locks::{Content, READS};
use super::unlock::{Looked, moment};
use super::{Expected, Found, Reply, Work};
use crate::clock::Clock;
use crate::exchange::Creations;
use crate::kind::{Tools, Unreadable};
use crate::restic::{Failure, Restic};
use crate::secrets::Credentials;

/// Does it.
pub(super) async fn perform(
    restic: &dyn Restic,
    tools: &Tools,
    work: Work,
    credentials: Result<Credentials, Unreadable>,
) -> Found {
    match work {
        Work::Look {
            inputs,
            expected,
            known_locks,
            key_known,
            collect,
        } => {
            let answer = ask(
                (restic, tools.clock()),
                tools.creations(),
                (inputs, expected, collect.is_some()),
                (&known_locks, key_known),
                credentials,
            )
            .await;
            if let Some(collect) = collect {
                share(tools, &collect, &answer.answer);
            }
            Found::Answer(Box::new(answer))
        }
        Work::Locks { known } => {
            let Ok(credentials) = credentials else {
                return Found::Locks(None);
            };
            let looked = locks((restic, tools.clock()), &credentials, &known).await;
            Found::Locks(
                looked
                    .inspect_err(|failure| warn!(%failure, "restic's locks could not be listed"))
                    .ok(),
            )
        }
    }
}

/// Reports figures to the hub where it has appointed this cluster.
fn share(tools: &Tools, collect: &Collect, answer: &Answer) {
    let Answer::Open {
        id,
        statistics: Some(Ok(statistics)),
        ..
    } = answer
    else {
        return;
    };
    if let Some(epoch) = collect.epoch {
        let clock = tools.clock();
        let report = report(id, epoch, collect.interval, statistics, clock.now());
        tools.collectors().report(report, clock.since_boot());
    }
}

/// A look at the repository, and at its locks if it opens.
async fn ask(
    (restic, clock): (&dyn Restic, &dyn Clock),
    creations: &Creations,
    (inputs, expected, collects): (Inputs, Expected, bool),
    (known_locks, key_known): (&BTreeSet<String>, bool),
    credentials: Result<Credentials, Unreadable>,
) -> Reply {
    let (mut seen, mut key) = (None, None);
    let answer = match credentials {
        Ok(credentials) => {
            let answer = look(restic, &credentials, (expected, collects), creations).await;
            if matches!(answer, Answer::Open { .. }) {
                seen = locks((restic, clock), &credentials, known_locks).await.ok();
                if !key_known {
                    key = key_in_use(restic, &credentials).await;
                }
            }
            answer
        }
        Err(Unreadable::Secret(error)) => Answer::Credentials(error),
        Err(error) if error.is_outage() => Answer::Unasked(error.to_string()),
        Err(error @ Unreadable::Api(_)) => Answer::Failed(Failure::Other(error.to_string())),
    };
    Reply {
        inputs,
        answer,
        locks: seen,
        key,
    }
}

/// Id of the key that the password opens; asked for again by the next look if it could not be read.
async fn key_in_use(restic: &dyn Restic, credentials: &Credentials) -> Option<String> {
    let read = restic.key_id(credentials).await;
    read.inspect_err(|failure| warn!(%failure, "the keys of a repository could not be listed"))
        .ok()
}

/// Turns that a creation takes before it is left to the next look.
const TURNS: usize = 3;

/// One look. Only [`Failure::NoRepository`], and only where no repository was ever known and one may be created, leads to
/// `init`.
async fn look(
    restic: &dyn Restic,
    credentials: &Credentials,
    (expected, collects): (Expected, bool),
    creations: &Creations,
) -> Answer {
    let (id, initialized) = match (restic.id(credentials).await, expected) {
        (Ok(is), Expected::Known(was)) if is != was => return Answer::Changed { was, is },
        (Ok(id), _) => (id, false),
        (Err(Failure::NoRepository), Expected::Known(id)) => return Answer::Missing { id },
        (Err(Failure::NoRepository), Expected::Any) => return Answer::Absent,
        (Err(Failure::NoRepository), Expected::AnyOrNew) => {
            match create(restic, credentials, creations).await {
                Ok(created) => created,
                Err(answer) => return answer,
            }
        }
        (Err(failure), _) => return Answer::Failed(failure),
    };
    let statistics = match collects {
        true => Some(restic.statistics(credentials).await),
        false => None,
    };
    Answer::Open {
        id,
        initialized,
        statistics,
    }
}

/// Creates the repository, or finds that another cluster has just done it. Two that create at the same moment would
/// leave one's config and the other's key behind, so each waits for its turn and looks again. A turn that was too short,
/// because others kept all processes busy, is followed by another.
async fn create(
    restic: &dyn Restic,
    credentials: &Credentials,
    creations: &Creations,
) -> Result<(String, bool), Answer> {
    let mut made = Err(Failure::NotBegun);
    for _ in 0..TURNS {
        let permit = creations.permit().await;
        match restic.id(credentials).await {
            Err(Failure::NoRepository) => {}
            Ok(id) => return Ok((id, false)),
            Err(failure) => return Err(Answer::Failed(failure)),
        }
        made = restic.init_before(credentials, permit.until()).await;
        if made != Err(Failure::NotBegun) {
            break;
        }
    }
    match made {
        Ok(id) => Ok((id, true)),
        // Somebody outside of the fleet was quicker: that repository must open with our password to count.
        Err(Failure::Exists) => restic
            .id(credentials)
            .await
            .map(|id| (id, false))
            .map_err(Answer::Failed),
        Err(
            failure @ (Failure::Unreachable(_)
            | Failure::Forbidden(_)
            | Failure::DeadlineExceeded(_)
            | Failure::NotBegun),
        ) => Err(Answer::Failed(failure)),
        Err(failure) => Err(Answer::InitFailed(failure)),
    }
}

/// Lists locks, and reads those that are not known yet.
async fn locks(
    (restic, clock): (&dyn Restic, &dyn Clock),
    credentials: &Credentials,
    known: &BTreeSet<String>,
) -> Result<Looked, Failure> {
    let start = moment(clock);
    let ids = restic.locks(credentials).await?;
    let end = moment(clock);
    let mut read = Vec::new();
    for id in ids.iter().filter(|id| !known.contains(*id)).take(READS) {
        match restic.lock(credentials, id).await {
            Ok(file) => read.push((id.clone(), Content::Read(file))),
            Err(failure @ (Failure::Damaged(_) | Failure::Other(_))) => {
                read.push((id.clone(), Content::Unreadable(failure.to_string())));
            }
            // Asked again at the next look.
            Err(_) => {}
        }
    }
    Ok(Looked {
        start,
        end,
        ids,
        read,
    })
}

#[cfg(test)]
#[path = "look_tests.rs"]
mod tests;
