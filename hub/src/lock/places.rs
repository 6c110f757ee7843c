//! Puts in force in which stores the repositories of clusters lie: durable first, then bindings, resources and locks.

use std::sync::Arc;

use tracing::warn;

use super::grantor::{Grantor, Record};
use super::keeper::Keeper;
use crate::copies::Place;
use crate::copies::place::{Found, Member, UNKNOWN};
use crate::now as wall_clock;
use crate::store::StoredDecision;
use crate::store::copies::Moved;

impl Keeper {
    /// Puts the places in force that are due, once no lock that they change is in use.
    pub(super) async fn place(&mut self, id: &Arc<str>, members: &[Member]) {
        let Some(known) = self.copies.known.get(id) else {
            return;
        };
        let of = |cluster: &Arc<str>| members.iter().find(|m| m.cluster == *cluster);
        let due: Vec<(Arc<str>, Found)> = known
            .due
            .iter()
            .filter_map(|(cluster, found)| Some((cluster.clone(), in_force(found, of(cluster)?)?)))
            .collect();
        let moved: Vec<Moved> = due
            .iter()
            .filter_map(|(cluster, found)| {
                let from = of(cluster)?.store.clone();
                let (cluster, to) = (cluster.clone(), found.store.clone());
                (from != to).then_some(Moved { cluster, from, to })
            })
            .collect();
        let in_use = |key: &Arc<str>| {
            let lock = self.repositories.get(key);
            lock.is_some_and(|lock| lock.draining || !lock.grantor.is_idle())
        };
        if moved.iter().any(|moved| in_use(&moved.from) || in_use(&moved.to)) {
            return;
        }
        let places = due.into_iter().map(|(cluster, found)| Place {
            restic_id: id.clone(),
            cluster,
            store: found.store,
            urls: found.urls,
        });
        let places: Vec<Place> = places.collect();
        let decision = (!moved.is_empty()).then(|| decision(id, &moved));
        let saved = self
            .store
            .save_places(places.clone(), moved.clone(), decision)
            .await;
        if let Err(error) = saved {
            return self.failed(
                error,
                "the stores of a repository could not be told apart durably",
            );
        }
        if let Some(known) = self.copies.known.get_mut(id) {
            known.due.clear();
        }
        self.hub.change(|inventory| inventory.place(places));
        for moved in moved {
            warn!(cluster = %moved.cluster, from = %moved.from, to = %moved.to, "a cluster uses another store of the repository");
            self.separate(&moved);
        }
        // What waited for this is granted now.
        self.retry_blocked().await;
    }

    /// The lock of the other store begins above all tokens that the cluster may have seen. The cluster connects again, and asks
    /// anew for what it waits for.
    fn separate(&mut self, moved: &Moved) {
        let token = |keeper: &mut Keeper, key: &Arc<str>| keeper.repository(key).grantor.token();
        let token = token(self, &moved.from).max(token(self, &moved.to));
        let record = Record {
            token,
            ..Record::default()
        };
        let floor = self.hub.token_floor;
        let (now, terms) = (self.now(), self.settings.terms);
        let lock = self.repository(&moved.to);
        if lock.grantor.token() < token {
            lock.grantor = Grantor::restored(record, now, &terms).above(floor);
        }
        for key in [&moved.from, &moved.to] {
            self.repository(key).history = None;
        }
        self.asks.remove_of(&moved.cluster, &moved.from);
        self.hub.end(&moved.cluster);
    }
}

/// What is put in force of what was found for a cluster: nothing once its locations are others. One that is not known any more
/// keeps the key that it has.
fn in_force(found: &Found, member: &Member) -> Option<Found> {
    let mut found = found.clone();
    if found.urls == UNKNOWN {
        found.store = member.store.clone();
        return Some(found);
    }
    (found.urls == member.urls).then_some(found)
}

fn decision(id: &Arc<str>, moved: &[Moved]) -> StoredDecision {
    let list = |of: fn(&Moved) -> &Arc<str>| {
        let each = moved
            .iter()
            .map(|moved| format!("{}: {}", moved.cluster, of(moved)));
        each.collect::<Vec<_>>().join(", ")
    };
    StoredDecision {
        at: wall_clock(),
        who: "hub".to_owned(),
        what: "place-repository".to_owned(),
        subject: id.to_string(),
        restic_id: id.to_string(),
        before: list(|moved| &moved.from),
        after: list(|moved| &moved.to),
        ..StoredDecision::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_found_at_other_locations_is_not_put_in_force() {
        let member = Member {
            cluster: "b".into(),
            store: "id".into(),
            urls: "u".to_owned(),
            since: 1,
        };
        let found = |urls: &str| Found {
            store: "id@2".into(),
            urls: urls.to_owned(),
        };
        assert_eq!(in_force(&found("u"), &member), Some(found("u")));
        assert_eq!(in_force(&found("v"), &member), None);
        let unknown = in_force(&found(UNKNOWN), &member).unwrap();
        assert_eq!((&*unknown.store, unknown.urls.as_str()), ("id", UNKNOWN));
    }
}
