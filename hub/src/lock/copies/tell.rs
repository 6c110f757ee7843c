//! Tells clusters of the stores of repositories that they use.

use std::sync::Arc;

use proto::v1::hub_message::Body;
use proto::v1::{HubMessage, RepositoryCopies};

use super::Keeper;
use crate::copies::place::Member;
use crate::copies::shown::Scene;

impl Keeper {
    /// Sends each cluster what it has to know of other stores, when that has changed. Whether all that are connected know it.
    pub(super) fn tell_copies(&mut self, id: &Arc<str>) -> bool {
        let mut all = true;
        let scene = self.hub.read(|inventory| Scene::of(inventory, id));
        for Member { cluster, store, .. } in &scene.members {
            // The rest is sent with the next look: a spoke with many repositories is not overrun.
            let Some(session) = self.sessions.get(cluster) else {
                continue;
            };
            if !session.outgoing.has_room() {
                all = false;
                continue;
            }
            let question = self.copies.in_question(id).map(str::to_owned);
            let message = RepositoryCopies {
                restic_id: store.to_string(),
                copies: scene.others(store),
                unclear: question
                    .or_else(|| scene.unclear(store, Some(cluster)))
                    .unwrap_or_default(),
            };
            let Some(known) = self.copies.known.get_mut(id) else {
                return false;
            };
            if known.told.get(cluster) == Some(&message) {
                continue;
            }
            let sent = HubMessage {
                body: Some(Body::RepositoryCopies(message.clone())),
            };
            match session.outgoing.send(sent) {
                Ok(()) => {
                    known.told.insert(cluster.clone(), message);
                }
                Err(_) => all = false,
            }
        }
        all
    }
}
