//! Operations whose Jobs a ResticRepository controls. Pure.

use std::sync::Arc;

use crds::ResticRepository;

use super::Assignment;
use crate::exchange::Pinned;
use crate::world::{JobView, Key, Stored as _, World};

/// The repository that an operation was pinned to, if it is still that very one.
#[must_use]
pub fn pinned_to(world: &World, pinned: &Pinned) -> Option<Arc<ResticRepository>> {
    let repository = world.repositories.get(&pinned.owner)?;
    (repository.uid() == pinned.owner_uid).then_some(repository)
}

/// The repository that a Job is for, by its owner reference.
#[must_use]
pub fn assigned_by_owner(world: &World, at: &Key, job: &JobView) -> Option<Assignment> {
    let (kind, name) = job.meta.owner_name.as_ref()?;
    let owner = Key::new(&at.namespace, name);
    let repository = world.repositories.get(&owner);
    let repository = repository.filter(|r| Some(r.uid()) == job.meta.owner.as_deref())?;
    (&**kind == "ResticRepository").then(|| assigned(owner, &repository))
}

/// An operation on a repository, for itself.
#[must_use]
pub fn assigned(owner: Key, repository: &ResticRepository) -> Assignment {
    Assignment {
        owner_uid: repository.uid().to_owned(),
        repository: owner.clone(),
        owner,
        exists: true,
        restic_id: repository.status.as_ref().and_then(|s| s.repository_id.clone()),
    }
}
