//! What a change of a status means outside of it: Events, log lines, notifications.

use tracing::info;

use super::controller::Controller;
use crate::context::Context;
use crate::notify::{Notifying as _, Subject};
use crate::world::{Key, Stored};

/// Announces what is new in a status that was written.
pub(super) fn announce<C: Controller>(
    context: &Context,
    key: &Key,
    resource: &C::Resource,
    (old, new): (&C::Status, &C::Status),
) {
    let uid = Stored::uid(resource);
    for event in C::events(old, new) {
        info!(kind = C::NAME, object = %key, reason = event.reason, note = event.note, "status changed");
        let (severity, reason) = (event.severity, &event.reason);
        context
            .events
            .publish(C::NAME, key, uid, severity, reason, &event.note);
    }
    let changes = C::Resource::changes(old, new);
    if changes.is_empty() {
        return;
    }
    let Some(config) = resource.notifications() else {
        return;
    };
    let subject = Subject {
        kind: C::NAME,
        key: key.clone(),
        uid: uid.to_owned(),
        cluster: context.cluster.clone(),
    };
    context
        .notifier
        .publish(&subject, &config, changes, context.clock.now());
}
