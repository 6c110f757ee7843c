//! Answers the hub whether a snapshot is in a repository of this cluster. Only names are listed: nothing is written, and
//! restic's cache, which is shared by all stores with one id, is not asked.

use proto::plan::is_id;
use proto::v1::{StoreProbe, StoreProbeAnswer};

use crate::context::Context;
use crate::restic::Restic;
use crate::world::{Index, Key};

/// The answer to one question.
pub async fn answer(context: &Context, restic: &dyn Restic, asked: StoreProbe) -> StoreProbeAnswer {
    let listing = listing(context, restic, &asked).await;
    let StoreProbe { probe, restic_id, .. } = asked;
    let answer = StoreProbeAnswer {
        probe,
        restic_id,
        ..StoreProbeAnswer::default()
    };
    match listing {
        Ok((listed, snapshots)) => StoreProbeAnswer {
            listed,
            snapshots,
            ..answer
        },
        Err(error) => StoreProbeAnswer { error, ..answer },
    }
}

/// Whether the snapshot is listed, and how many are. All resources with this id have to agree.
async fn listing(context: &Context, restic: &dyn Restic, asked: &StoreProbe) -> Result<(bool, u64), String> {
    let id = asked.restic_id.as_str();
    if !is_id(id) || !is_id(&asked.snapshot) {
        return Err("the question is malformed".to_owned());
    }
    let mut found = None;
    for (key, repository) in context.world.repositories.by(Index::ResticId, &Key::new("", id)) {
        let credentials = crate::credentials::read(context, &repository).await;
        let credentials = credentials
            .map_err(|error| format!("{key}: the Secret could not be read: {error}"))?
            .map_err(|error| format!("{key}: {error}"))?;
        let failed = |error| format!("{key}: {error}");
        // What lies there now may be another repository.
        let present = restic.id(&credentials).await.map_err(failed)?;
        if present != id {
            return Err(format!("{key}: another repository is there now"));
        }
        let ids = restic.snapshot_ids(&credentials).await.map_err(failed)?;
        let listed = ids.contains(&asked.snapshot);
        match found {
            Some((before, _)) if before != listed => {
                return Err("resources of this cluster with this id lead to different stores".to_owned());
            }
            _ => found = Some((listed, u64::try_from(ids.len()).unwrap_or(u64::MAX))),
        }
    }
    found.ok_or_else(|| "no ResticRepository of this cluster has this id".to_owned())
}

#[cfg(test)]
#[path = "probe_tests.rs"]
mod tests;
