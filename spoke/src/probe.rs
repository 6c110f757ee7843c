//! Shows the hub in which store a repository of this cluster lies: holds a shared lock of restic for a short time, or looks for
//! the lock of another cluster. See copy.proto.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use proto::plan::is_id;
use proto::v1::{StoreProbe, StoreProbeAnswer};
use tokio::sync::oneshot;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use crate::consent::read_only;
use crate::context::Context;
use crate::restic::Restic;
use crate::secrets::Credentials;
use crate::world::{Index, Key};

/// No lock is held for longer, whatever the hub asks for: restic's own would be renewed then.
const LONGEST: Duration = Duration::from_secs(5 * 60);
/// Locks that are held at a time.
const HELD: usize = 4;
/// How often a lock that is held is looked for at another location, and the time between two looks.
const LOOKS: u32 = 3;
const PAUSE: Duration = Duration::from_secs(2);
const APART: &str = "resources of this cluster with this id lead to different stores";

/// Locks that are held for the hub. Dropped, they are given up.
#[derive(Default)]
pub struct Held {
    tasks: JoinSet<()>,
    /// What ends each, by probe.
    ends: HashMap<u64, oneshot::Sender<()>>,
}

impl Held {
    /// Begins to hold a lock. Returns its id once it is held.
    async fn hold(
        &mut self,
        (context, restic): (&Arc<Context>, &Arc<dyn Restic>),
        asked: &StoreProbe,
    ) -> Result<String, String> {
        while self.tasks.try_join_next().is_some() {}
        self.ends.retain(|_, end| !end.is_closed());
        if self.tasks.len() >= HELD {
            return Err("other probes are under way".to_owned());
        }
        let mut resources = opened(context, restic.as_ref(), asked).await?;
        let (_, credentials) = resources.remove(0);
        let looking = restic.clone();
        let same = context
            .world
            .repositories
            .by(Index::ResticId, &Key::new("", &asked.restic_id));
        if let Some(text) = same.iter().find_map(|(at, repository)| read_only(at, repository)) {
            return Err(text);
        }
        let (held, shows) = oneshot::channel();
        let (end, ended) = oneshot::channel();
        let (failed, failure) = oneshot::channel();
        let (restic, time) = (restic.clone(), Duration::from_millis(asked.hold_ms).min(LONGEST));
        self.tasks.spawn(async move {
            let until = async {
                // An error means that the sender is gone: the lock is given up.
                let _ = timeout(time, ended).await;
            };
            let (stop, stopped) = oneshot::channel();
            let hold = async {
                if let Err(error) = restic.hold(&credentials, held, stopped).await {
                    let _ = failed.send(error.to_string());
                }
            };
            let mut hold = std::pin::pin!(hold);
            tokio::select! {
                () = &mut hold => return,
                () = until => {}
            }
            let _ = stop.send(());
            hold.await;
        });
        self.ends.insert(asked.probe, end);
        match shows.await {
            Ok(id) => {
                let agreed = agree(looking.as_ref(), resources, &id).await;
                if agreed.is_err() {
                    self.ends.remove(&asked.probe);
                }
                agreed.map(|()| id)
            }
            Err(_) => Err(failure
                .await
                .unwrap_or_else(|_| "the lock could not be held".to_owned())),
        }
    }
}

/// The answer to one question; `None` where a lock is given up.
pub async fn answer(
    parts: (&Arc<Context>, &Arc<dyn Restic>),
    held: &mut Held,
    asked: StoreProbe,
) -> Option<StoreProbeAnswer> {
    let found = if asked.hold_ms > 0 {
        held.hold(parts, &asked).await.map(|lock| (true, lock))
    } else if asked.lock.is_empty() {
        held.ends.remove(&asked.probe);
        return None;
    } else {
        let listed = listed((parts.0, parts.1.as_ref()), &asked).await;
        listed.map(|listed| (listed, String::new()))
    };
    let answer = StoreProbeAnswer {
        probe: asked.probe,
        restic_id: asked.restic_id,
        ..StoreProbeAnswer::default()
    };
    Some(match found {
        Ok((listed, lock)) => StoreProbeAnswer {
            listed,
            lock,
            ..answer
        },
        Err(error) => StoreProbeAnswer { error, ..answer },
    })
}

/// The other resources with an id have to list a lock that is held through one of them. A storage may show it later.
async fn agree(restic: &dyn Restic, others: Vec<(Key, Credentials)>, lock: &str) -> Result<(), String> {
    for (key, credentials) in others {
        let mut tries = 0;
        loop {
            let locks = restic.locks(&credentials).await;
            if locks
                .map_err(|e| format!("{key}: {e}"))?
                .iter()
                .any(|l| l == lock)
            {
                break;
            }
            tries += 1;
            if tries == LOOKS {
                return Err(APART.to_owned());
            }
            sleep(PAUSE).await;
        }
    }
    Ok(())
}

/// Whether a lock is listed. All resources with this id have to agree.
async fn listed((context, restic): (&Context, &dyn Restic), asked: &StoreProbe) -> Result<bool, String> {
    if !is_id(&asked.lock) {
        return Err("the question is malformed".to_owned());
    }
    let mut found = None;
    for (key, credentials) in opened(context, restic, asked).await? {
        let locks = restic
            .locks(&credentials)
            .await
            .map_err(|e| format!("{key}: {e}"))?;
        let listed = locks.contains(&asked.lock);
        if found.replace(listed).is_some_and(|before| before != listed) {
            return Err(APART.to_owned());
        }
    }
    found.ok_or_else(|| "nothing was listed".to_owned())
}

/// The resources with the id of a question, at least one, with their credentials. What lies at their locations has this id now.
async fn opened(
    context: &Context,
    restic: &dyn Restic,
    asked: &StoreProbe,
) -> Result<Vec<(Key, Credentials)>, String> {
    let id = asked.restic_id.as_str();
    if !is_id(id) {
        return Err("the question is malformed".to_owned());
    }
    let mut opened = Vec::new();
    for (key, repository) in context.world.repositories.by(Index::ResticId, &Key::new("", id)) {
        let credentials = crate::credentials::read(context, &repository).await;
        let credentials = credentials
            .map_err(|error| format!("{key}: the Secret could not be read: {error}"))?
            .map_err(|error| format!("{key}: {error}"))?;
        let present = restic.id(&credentials).await.map_err(|e| format!("{key}: {e}"))?;
        if present != id {
            return Err(format!("{key}: another repository is there now"));
        }
        opened.push((key, credentials));
    }
    if opened.is_empty() {
        return Err("no ResticRepository of this cluster has this id".to_owned());
    }
    Ok(opened)
}

#[cfg(test)]
#[path = "probe_tests.rs"]
mod tests;
