//! Another repository at the location of the one that is known: a storage that was emptied and initialised again, or a
//! mount that was swapped. A person accepts it, or it stays an alarm. Pure.

use crds::conditions::{Conditions, Status, reasons, types};
use crds::{ResticRepository, ResticRepositoryStatus, names};
use jiff::Timestamp;
use kube::ResourceExt as _;

use super::State;
use super::answer::Answer;

/// Fewest digits of an id that a person may write.
const DIGITS: usize = 8;

/// Takes the other repository as the known one if the annotation of the resource names it. Nothing that was found about the
/// former one is kept. Returns whether it did.
pub(super) fn accept(
    resource: &ResticRepository,
    status: &mut ResticRepositoryStatus,
    state: &mut State,
    now: Timestamp,
) -> bool {
    let Some(is) = status.changed_id.clone() else {
        return false;
    };
    let named = resource.annotations().get(names::ANNOTATION_ACCEPT_REPOSITORY);
    if !named.is_some_and(|named| named.len() >= DIGITS && is.starts_with(named.as_str())) {
        return false;
    }
    let was = status.repository_id.take().unwrap_or_default();
    *status = ResticRepositoryStatus {
        conditions: std::mem::take(&mut status.conditions),
        observed_generation: status.observed_generation,
        repository_id: Some(is.clone()),
        ..ResticRepositoryStatus::default()
    };
    *state = State::default();
    status
        .conditions
        .retain(|condition| condition.type_ == types::READY);
    let text = format!("repository {is} was accepted in the place of {was}; it is opened now");
    let generation = resource.metadata.generation;
    let mut conditions = Conditions::at(&mut status.conditions, generation, now);
    conditions.set(types::READY, Status::Unknown, reasons::REPOSITORY_ACCEPTED, text);
    true
}

/// Whether an answer is about the repository that is known now. A look that was begun before another one was accepted
/// compares with the former.
pub(super) fn is_present(answer: &Answer, status: &ResticRepositoryStatus) -> bool {
    match answer {
        Answer::Changed { was, .. } | Answer::Missing { id: was } => {
            status.repository_id.as_ref() == Some(was)
        }
        Answer::Open { id, .. } => status.repository_id.as_ref().is_none_or(|known| known == id),
        _ => true,
    }
}
