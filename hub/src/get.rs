//! One object with all that is known of it: its row, the resources behind it, what belongs to it, and what happened to it.

use std::sync::Arc;

use prost::Message as _;
use proto::digest::object_hash;
use proto::time::from_unix_millis;
use proto::v1::{
    Collection, Condition, GetRequest, GetResponse, ObjectState, Relation, Resource, RunDay, row::Body,
};
use tonic::Status;

use crate::access::{Person, Verb};
use crate::activity::{self, About, Asked, Kind};
use crate::health::Health;
use crate::hub::Hub;
use crate::inventory::{Held, Member};
use crate::lock::people::unavailable;
use crate::seen::Seen;
use crate::store::collect::DAY;
use crate::store::runs::StoredDay;
use crate::{Millis, clean, policies, restores, rows, watch};

/// Most resources, relations and events of an answer.
const RESOURCES: usize = 20;
const RELATIONS: usize = 100;
const EVENTS: usize = 50;
/// Days of a backup's runs.
const DAYS: Millis = 30;

/// The answer for a person.
///
/// # Errors
/// InvalidArgument without a collection, NotFound for what is not there or not seen, Unavailable when the store fails.
pub async fn get(hub: &Hub, person: &Person, request: &GetRequest) -> Result<GetResponse, Status> {
    let (collection, key) = (request.collection(), request.key.as_str());
    let sight = person.sight(Verb::See);
    let inventory = hub.snapshot();
    let seen = Seen::new(&inventory, &sight);
    let Some(row) = watch::row(seen, collection, key) else {
        return Err(missing(collection, key));
    };
    let (relations, related) = relations(seen, collection, key);
    let mut answer = GetResponse {
        revision: inventory.revision(),
        as_of: Some(from_unix_millis(inventory.now())),
        relations,
        related,
        ..GetResponse::default()
    };
    for held in behind(seen, collection, key).into_iter().take(RESOURCES) {
        answer.resources.push(resource(hub, held).await?);
    }
    let asked = asked(&row.body, key);
    if let (About::Resource(Kind::Backup, name), Some(cluster)) = (&asked.about, asked.clusters.first()) {
        let (namespace, name) = name.split_once('/').unwrap_or_default();
        let days = hub.store().run_days(cluster, namespace, name).await;
        let days = days.map_err(|error| unavailable(&error))?;
        answer.days = shown(days, inventory.now());
    }
    answer.row = Some(row);
    answer.events = activity::lately(hub, person, &asked).await?;
    Ok(answer)
}

fn missing(collection: Collection, key: &str) -> Status {
    let (what, lists) = match collection {
        Collection::Clusters => ("cluster", "fleet clusters"),
        Collection::Repositories => ("repository", "fleet repos"),
        Collection::Backups => ("backup", "fleet backups"),
        Collection::Policies => ("policy", "fleet policies"),
        Collection::Restores => ("restore", "fleet restores"),
        Collection::Unspecified => {
            return Status::invalid_argument(
                "name the collection: clusters, repositories, backups, policies or restores",
            );
        }
    };
    Status::not_found(format!("there is no {what} {key:?}; `{lists}` lists them"))
}

/// What is looked for among what happened.
fn asked(row: &Option<Body>, key: &str) -> Asked {
    let resource = |kind, cluster: &str, namespace: &str, name: &str| Asked {
        clusters: vec![cluster.to_owned()],
        about: About::Resource(kind, format!("{namespace}/{name}")),
        ..Asked::default()
    };
    let asked = match row {
        Some(Body::Backup(row)) => resource(Kind::Backup, &row.cluster, &row.namespace, &row.name),
        Some(Body::Policy(row)) => resource(Kind::Policy, &row.cluster, &row.namespace, &row.name),
        Some(Body::Restore(row)) => resource(Kind::Restore, &row.cluster, &row.namespace, &row.name),
        Some(Body::Repository(_)) => Asked {
            about: About::Repository(key.to_owned()),
            ..Asked::default()
        },
        Some(Body::Cluster(row)) => Asked {
            clusters: vec![row.name.clone()],
            ..Asked::default()
        },
        None => Asked::default(),
    };
    Asked {
        limit: EVENTS,
        ..asked
    }
}

/// The resources behind a row that are seen.
fn behind<'a>(seen: Seen<'a>, collection: Collection, key: &'a str) -> Vec<&'a Arc<Held>> {
    let index = seen.inventory.index();
    let one = match collection {
        Collection::Repositories => return seen.bindings(key).collect(),
        Collection::Backups => index.backup(key),
        Collection::Policies => index.policy(key),
        Collection::Restores => index.restore(key),
        Collection::Clusters | Collection::Unspecified => None,
    };
    one.into_iter().filter(|held| seen.held(held)).collect()
}

/// All of a resource's state: what the hub does not judge by is in the store alone. `None` when that has another state.
pub(crate) async fn state(hub: &Hub, held: &Held) -> Result<Option<ObjectState>, Status> {
    let state = stored(hub, held).await?;
    if state.is_some() {
        return Ok(state);
    }
    // It has arrived and was not written yet. An error is logged, and the next answer has it.
    let _ = hub.flush().await;
    stored(hub, held).await
}

/// A resource with all its conditions.
async fn resource(hub: &Hub, held: &Held) -> Result<Resource, Status> {
    let conditions: Vec<Condition> = match state(hub, held).await? {
        Some(state) => state.conditions,
        None => conditions(held),
    };
    Ok(Resource {
        place: held.place.to_string(),
        uid: held.uid.to_string(),
        generation: held.generation,
        created: held.created().map(from_unix_millis),
        conditions,
    })
}

/// As far as they are held. That a backup is Ready is held as such.
fn conditions(held: &Held) -> Vec<Condition> {
    let ready = held.backup().filter(|backup| backup.ready).map(|_| Condition {
        r#type: "Ready".to_owned(),
        status: "True".to_owned(),
        ..Condition::default()
    });
    ready
        .into_iter()
        .chain(held.conditions().iter().cloned())
        .collect()
}

/// As it is stored; `None` when the store has another state.
async fn stored(hub: &Hub, held: &Held) -> Result<Option<ObjectState>, Status> {
    let bytes = hub.store().state(&held.cluster, &held.uid).await;
    let bytes = bytes.map_err(|error| unavailable(&error))?;
    let bytes = bytes.filter(|bytes| object_hash(&held.uid, bytes) == held.hash);
    let state = bytes.and_then(|bytes| ObjectState::decode(bytes.as_slice()).ok());
    Ok(state.map(|mut state| {
        clean::object(&mut state);
        state
    }))
}

fn shown(days: Vec<StoredDay>, now: Millis) -> Vec<RunDay> {
    let today = now.div_euclid(DAY);
    let recent = days.into_iter().filter(|of| i64::from(of.day) > today - DAYS);
    recent
        .map(|of| RunDay {
            day: Some(from_unix_millis(i64::from(of.day) * DAY)),
            succeeded: of.succeeded.into(),
            partial: of.partial.into(),
            failed: of.failed.into(),
            bytes_added: u64::from(of.added) * 1024,
        })
        .collect()
}

/// What belongs to an object, nearest first, and how many there are.
fn relations(seen: Seen<'_>, collection: Collection, key: &str) -> (Vec<Relation>, u64) {
    let mut found = Relations {
        seen,
        shown: Vec::new(),
        all: 0,
    };
    match collection {
        Collection::Clusters => {
            if let Some(member) = seen.member(key) {
                found.of_cluster(member);
            }
        }
        Collection::Repositories => found.of_repository(key),
        _ => {
            for held in behind(seen, collection, key) {
                found.of_resource(held);
            }
        }
    }
    (found.shown, found.all)
}

struct Relations<'a> {
    seen: Seen<'a>,
    shown: Vec<Relation>,
    all: u64,
}

impl Relations<'_> {
    /// Adds one. Its state is worked out only where it is shown.
    fn add(
        &mut self,
        what: &str,
        collection: Collection,
        key: &str,
        name: &str,
        state: impl FnOnce() -> String,
    ) {
        self.all += 1;
        if self.shown.len() < RELATIONS {
            self.shown.push(Relation {
                what: what.to_owned(),
                collection: collection.into(),
                key: key.to_owned(),
                name: name.to_owned(),
                state: state(),
            });
        }
    }

    fn cluster(&mut self, name: &str) {
        let seen = self.seen;
        if let Some(member) = seen.member(name) {
            let state = || match rows::cluster(seen, member).body {
                Some(Body::Cluster(row)) => row.state,
                _ => String::new(),
            };
            self.add("cluster", Collection::Clusters, name, name, state);
        }
    }

    fn repository(&mut self, key: &str) {
        let seen = self.seen;
        if let Some(Body::Repository(row)) = rows::repository(seen, key).and_then(|row| row.body) {
            self.add("repository", Collection::Repositories, key, &row.name, || {
                row.state
            });
        }
    }

    fn held(&mut self, held: &Held) {
        let inventory = self.seen.inventory;
        let (what, collection) = match () {
            () if held.backup().is_some() => ("backup", Collection::Backups),
            () if held.policy().is_some() => ("policy", Collection::Policies),
            () if held.restore().is_some() => ("restore", Collection::Restores),
            () => return,
        };
        let state = || match collection {
            Collection::Policies => policies::state(inventory, held).0.to_owned(),
            Collection::Restores => restores::state(inventory, held).0.to_owned(),
            _ => rows::state(inventory, held).as_str().to_owned(),
        };
        self.add(what, collection, &held.place, held.name(), state);
    }

    /// Its repository, the policies of that, and its cluster.
    fn of_resource(&mut self, held: &Held) {
        let (seen, index) = (self.seen, self.seen.inventory.index());
        let place = held
            .writes_to()
            .or_else(|| held.refers_to())
            .or_else(|| held.restores_from());
        let repository = place.and_then(|place| index.binding(&place));
        if let Some(repository) = repository.filter(|repository| seen.held(repository)) {
            self.repository(&repository.row);
            if held.backup().is_some() {
                for policy in index.policies(&repository.row).filter(|policy| seen.held(policy)) {
                    self.held(policy);
                }
            }
        }
        self.cluster(&held.cluster);
    }

    /// Policies for it, backups into it, the worst first, restores from it, and its clusters.
    fn of_repository(&mut self, key: &str) {
        let (seen, index) = (self.seen, self.seen.inventory.index());
        for policy in index.policies(key).filter(|policy| seen.held(policy)) {
            self.held(policy);
        }
        let mut clusters: Vec<String> = seen.bindings(key).map(|held| held.cluster.to_string()).collect();
        clusters.dedup();
        let into = |held: &&Arc<Held>| {
            let repository = held.writes_to().and_then(|place| index.binding(&place));
            repository.is_some_and(|repository| *repository.row == *key)
        };
        let mut backups: Vec<(Health, &Arc<Held>)> = seen
            .backups(&clusters)
            .filter(into)
            .map(|held| (rows::state(seen.inventory, held), held))
            .collect();
        backups.sort_by_key(|(health, _)| *health);
        for (_, held) in backups {
            self.held(held);
        }
        let from = |held: &&Arc<Held>| held.restore().is_some_and(|restore| restore.restic_id == key);
        for held in index.restores().filter(from).filter(|held| seen.held(held)) {
            self.held(held);
        }
        for cluster in clusters {
            self.cluster(&cluster);
        }
    }

    /// Its repositories, policies and backups, the worst first.
    fn of_cluster(&mut self, member: &Member) {
        let seen = self.seen;
        let of_kind = |fits: fn(&Held) -> bool| {
            let all = member
                .objects
                .values()
                .filter(move |held| fits(held) && seen.held(held));
            let mut all: Vec<&Arc<Held>> = all.collect();
            all.sort_by_key(|held| held.place.clone());
            all
        };
        for held in of_kind(|held| held.repository().is_some()) {
            self.repository(&held.row);
        }
        for held in of_kind(|held| held.policy().is_some()) {
            self.held(held);
        }
        let mut backups = of_kind(|held| held.backup().is_some());
        backups.sort_by_key(|held| rows::state(seen.inventory, held));
        for held in backups {
            self.held(held);
        }
    }
}
