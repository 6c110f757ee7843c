//! Watches -> stores -> wake-ups. One watch per type, each a service of its own; a broken watch is started again with
//! back-off, and what was deleted while it was broken is found by comparing the new list with the store.

mod changes;
mod guard;
mod lists;
mod notices;
mod pauses;
mod relist;
mod remembered;
mod requests;
mod routes;
mod selection;
mod table;

use std::fmt::Debug;
use std::sync::Arc;

use futures::{Stream, StreamExt as _};
use k8s_openapi::NamespaceResourceScope;
use k8s_openapi::api::batch::v1::{CronJob, Job};
use k8s_openapi::api::core::v1::{ConfigMap, Namespace, PersistentVolumeClaim, Pod, Secret, ServiceAccount};
use k8s_openapi::api::rbac::v1::{Role, RoleBinding};
use kube::api::Api;
use kube::core::PartialObjectMeta;
use kube::runtime::watcher as watch;
use kube::runtime::watcher::{self, Event};
use kube::{Client, Resource, ResourceExt as _};
use serde::de::DeserializeOwned;
use tokio::sync::watch as signal;
use tokio::time::{Instant, sleep};
use tracing::warn;

use crate::context::Context;
use crate::service::{Running, Service, Stage};
use crate::world::{
    AppPodView, ClaimView, CronJobView, Delivery, JobView, Key, MetaView, NamespaceView, PodView, Store,
    Stored, Undecodable, World,
};
use crds::{GlobalRetentionPolicy, ResticBackup, ResticRepository, ResticRestore};

use guard::Guard;
use lists::Lists;
use pauses::Pauses;
use relist::{Change, Relist};
use requests::Step;
pub use routes::Routes;
use selection::{APP_PODS, Part, everything, of_applications, ours};
pub use table::Reader;
use table::Row;

/// Events after which a watch lets the other tasks of its thread run: a long list comes out of memory, page by page.
const YIELD: usize = 64;
const ADVICE: &str = "the log line \"panicked at\" before names the place; an object that an older or newer version wrote may be the \
                      cause, and another version of the operator the remedy";

/// All watches as services, of these namespaces or of all where none is given. The receiver turns true when each has
/// listed once.
pub fn services(
    client: &Client,
    context: &Arc<Context>,
    routes: &Arc<Routes>,
    namespaces: &[String],
) -> (Vec<Service>, signal::Receiver<bool>) {
    let (synced, receiver) = signal::channel(false);
    let intake = Intake {
        client: client.clone(),
        context: context.clone(),
        routes: routes.clone(),
        parts: Part::all(namespaces),
        lists: Arc::new(Lists::new(routes.clone(), synced)),
    };
    let i = &intake;
    remembered::remember_deleted(context);
    let mut services = [
        i.guarded::<ResticRepository>(Reader::Repositories, |w| &w.repositories, table::REPOSITORY),
        i.guarded::<ResticBackup>(Reader::Backups, |w| &w.backups, table::BACKUP),
        i.guarded::<ResticRestore>(Reader::Restores, |w| &w.restores, table::RESTORE),
        i.guarded::<GlobalRetentionPolicy>(Reader::Policies, |w| &w.policies, table::POLICY),
        i.watch::<CronJob, _>(ours(), CronJobView::of, |w| &w.cron_jobs, table::CRON_JOB),
        i.watch::<Job, _>(ours(), JobView::of, |w| &w.jobs, table::JOB),
        i.watch::<Pod, _>(ours(), PodView::of, |w| &w.pods, table::POD),
        i.app_pods(),
        i.metadata::<Role>(ours(), |w| &w.roles, table::SERVICE_ACCOUNT),
        i.metadata::<RoleBinding>(ours(), |w| &w.role_bindings, table::SERVICE_ACCOUNT),
        i.metadata::<ServiceAccount>(ours(), |w| &w.service_accounts, table::SERVICE_ACCOUNT),
        i.metadata::<ConfigMap>(ours(), |w| &w.config_maps, table::CONFIG_MAP),
        i.metadata::<Secret>(everything(), |w| &w.secrets, table::SECRET),
        i.watch::<PersistentVolumeClaim, _>(everything(), ClaimView::of, |w| &w.claims, table::CLAIM),
    ]
    .into_iter()
    .flatten()
    .collect::<Vec<_>>();
    services.push(i.namespaces());
    // Nothing waits for these: without them only reasons are missing.
    services.extend(notices::services(client, context, routes, &i.parts));
    (services, receiver)
}

/// What every watch is wired to.
#[derive(Clone)]
struct Intake {
    client: Client,
    context: Arc<Context>,
    routes: Arc<Routes>,
    lists: Arc<Lists>,
    parts: Vec<Part>,
}

/// What one watch is wired to.
struct Wiring<V: 'static> {
    /// The type, as metrics name it.
    kind: String,
    part: Part,
    /// Actors of the watched resources themselves.
    own: Option<Reader>,
    store: fn(&World) -> &Store<V>,
    rows: &'static [Row<V>],
}

impl<V: 'static> Wiring<V> {
    fn new(kind: String, part: &Part, store: fn(&World) -> &Store<V>, rows: &'static [Row<V>]) -> Wiring<V> {
        Wiring {
            kind,
            part: part.clone(),
            own: None,
            store,
            rows,
        }
    }

    /// The type, and the namespace of a watch of one alone.
    fn name(&self) -> String {
        self.part.name(&self.kind)
    }
}

/// An object that does not decode.
type Broken = Box<(Key, Undecodable)>;

impl Intake {
    /// A type whose objects are cut down to a view.
    fn watch<K, V>(
        &self,
        config: watcher::Config,
        view: fn(&K) -> V,
        store: fn(&World) -> &Store<V>,
        rows: &'static [Row<V>],
    ) -> Vec<Service>
    where
        K: Resource<DynamicType = (), Scope = NamespaceResourceScope>
            + Clone
            + DeserializeOwned
            + Debug
            + Send
            + 'static,
        V: Stored,
    {
        store(&self.context.world).filled_by(self.parts.len());
        let service = |part: &Part| {
            let api = part.api::<K>(self.noted(store, part.number));
            let config = config.clone();
            let decode = move |object: K| Ok((key(&object), view(&object)));
            let wiring = Wiring::new(K::kind(&()).into_owned(), part, store, rows);
            self.service(wiring, move || watch(api.clone(), config.clone()), decode)
        };
        self.parts.iter().map(service).collect()
    }

    /// Namespaces themselves: of those that are not watched, too.
    fn namespaces(&self) -> Service {
        let store: fn(&World) -> &Store<NamespaceView> = |world| &world.namespaces;
        let api = Api::<PartialObjectMeta<Namespace>>::all(self.noted(store, 0));
        let decode = |object: PartialObjectMeta<Namespace>| Ok((key(&object), NamespaceView::of(&object)));
        let wiring = Wiring::new("Namespace".to_owned(), &Part::whole(), store, table::NAMESPACE);
        self.service(wiring, move || watch(api.clone(), everything()), decode)
    }

    /// Pods of applications, by what backups read of them.
    fn app_pods(&self) -> Vec<Service> {
        let store: fn(&World) -> &Store<AppPodView> = |world| &world.app_pods;
        let service = |part: &Part| {
            let api = part.api::<Pod>(self.client.clone());
            let wiring = Wiring::new(APP_PODS.to_owned(), part, store, table::APP_POD);
            let decode = |pod: Pod| Ok((key(&pod), AppPodView::of(&pod)));
            self.service(wiring, move || watch(api.clone(), of_applications()), decode)
        };
        self.parts.iter().map(service).collect()
    }

    /// A type of which only metadata is transferred and kept.
    fn metadata<K>(
        &self,
        config: watcher::Config,
        store: fn(&World) -> &Store<MetaView>,
        rows: &'static [Row<MetaView>],
    ) -> Vec<Service>
    where
        K: Resource<DynamicType = (), Scope = NamespaceResourceScope>
            + Clone
            + DeserializeOwned
            + Debug
            + Send
            + Sync
            + 'static,
    {
        self.watch::<PartialObjectMeta<K>, _>(config, MetaView::of, store, rows)
    }

    /// One of our own kinds: an object that does not decode is reported and leaves its neighbours alone. The echo of an own
    /// write is new to others: backups wait for the status of their repository.
    fn guarded<K>(&self, own: Reader, store: fn(&World) -> &Store<K>, rows: &'static [Row<K>]) -> Vec<Service>
    where
        K: Resource<DynamicType = (), Scope = NamespaceResourceScope>
            + Stored
            + Clone
            + DeserializeOwned
            + Debug,
    {
        store(&self.context.world).filled_by(self.parts.len());
        let service = |part: &Part| {
            let api = part.api::<Guard<K>>(self.noted(store, part.number));
            let wiring = Wiring {
                own: Some(own),
                ..Wiring::new(K::kind(&()).into_owned(), part, store, rows)
            };
            self.service(wiring, move || watch(api.clone(), everything()), guard::decode)
        };
        self.parts.iter().map(service).collect()
    }

    fn service<T, V, S, D>(
        &self,
        wiring: Wiring<V>,
        open: impl Fn() -> S + Send + Sync + 'static,
        decode: D,
    ) -> Service
    where
        T: Send + 'static,
        V: Stored,
        S: Stream<Item = watcher::Result<Event<T>>> + Send + 'static,
        D: Fn(T) -> Result<(Key, V), Broken> + Clone + Send + Sync + 'static,
    {
        let name = wiring.name();
        self.lists.expect(&name);
        let name = format!("watch/{name}");
        let (intake, wiring) = (self.clone(), Arc::new(wiring));
        Service::new(name, Stage::Intake, ADVICE, move |running| {
            let (intake, wiring, decode) = (intake.clone(), wiring.clone(), decode.clone());
            let stream = open();
            async move {
                let stop = running.stop.clone();
                tokio::select! {
                    () = intake.follow(&wiring, stream, decode, &running) => {}
                    () = stop.cancelled() => {}
                }
                Ok(())
            }
        })
    }

    /// Takes the events of a watch in, for as long as it goes on.
    async fn follow<T, V: Stored>(
        &self,
        wiring: &Wiring<V>,
        stream: impl Stream<Item = watcher::Result<Event<T>>> + Send,
        decode: impl Fn(T) -> Result<(Key, V), Broken>,
        running: &Running,
    ) {
        const LISTING: &str = "the first list is not complete";
        let mut stream = Box::pin(stream);
        let mut pauses = Pauses::new(self.context.random.clone());
        let store = (wiring.store)(&self.context.world);
        let mut relist = Relist::new(wiring.own.is_some()).within(wiring.part.namespace.clone());
        let note = |change: fn(&mut Delivery)| store.note_part(wiring.part.number, change);
        let mut listing = true;
        let mut events = 0;
        running.waits(LISTING);
        while let Some(event) = stream.next().await {
            let event = match event {
                Ok(event) => event,
                Err(error) => {
                    note(Delivery::broke);
                    self.context.metrics.watch_error(&wiring.kind);
                    let pause = pauses.failed(&error, Instant::now());
                    warn!(resource = wiring.name(), %error, ?pause, "a watch broke and starts again");
                    if listing {
                        running.waits(format!("{LISTING}: {error}"));
                    }
                    sleep(pause).await;
                    continue;
                }
            };
            self.context.metrics.watch_event(&wiring.kind);
            pauses.yielded(&event);
            let done = matches!(event, Event::InitDone);
            if matches!(event, Event::Init) {
                note(Delivery::broke);
            }
            for change in self.take(wiring, &mut relist, event, &decode) {
                if let Some(own) = wiring.own {
                    self.routes.resource(own, &change);
                }
                self.routes.readers(&self.context.world, wiring.rows, &change);
            }
            if done {
                note(Delivery::listed);
            }
            if done && listing {
                listing = false;
                running.well();
                // After a failure: what was in the store already and had not been passed on yet.
                if !self.lists.listed(&wiring.name()) {
                    self.routes.look_at_all();
                }
            }
            events += 1;
            if events % YIELD == 0 {
                tokio::task::yield_now().await;
            }
        }
    }

    /// A client whose requests are noted in the store that they fill, as those of one of its watches.
    fn noted<V: Stored>(&self, store: fn(&World) -> &Store<V>, part: usize) -> Client {
        let context = self.context.clone();
        requests::noted(&self.client, move |step| {
            let now = context.clock.now();
            store(&context.world).note_part(part, |delivery| match step {
                Step::Sent => delivery.asked(now),
                Step::WatchAccepted => delivery.accepted(now),
            });
        })
    }

    /// Takes one event into the store.
    fn take<T, V: Stored>(
        &self,
        wiring: &Wiring<V>,
        relist: &mut Relist<V>,
        event: Event<T>,
        decode: &impl Fn(T) -> Result<(Key, V), Broken>,
    ) -> Vec<Change<V>> {
        let store = (wiring.store)(&self.context.world);
        let deleted = matches!(event, Event::Delete(_));
        match event_map(event, decode) {
            Ok(event) => relist.apply(store, event),
            Err(broken) => {
                let (key, object) = *broken;
                if !deleted {
                    self.context.metrics.undecodable(&wiring.kind);
                    warn!(resource = wiring.name(), object = %key, error = object.error, "an object could not be decoded and is left as it is");
                }
                relist.undecodable(store, key, object, deleted)
            }
        }
    }
}

/// Key of an object.
fn key<K: Resource<DynamicType = ()>>(object: &K) -> Key {
    Key::new(
        object.meta().namespace.as_deref().unwrap_or_default(),
        object.name_any(),
    )
}

/// Decodes the object in an event.
fn event_map<T, V>(
    event: Event<T>,
    decode: impl Fn(T) -> Result<(Key, V), Broken>,
) -> Result<Event<(Key, V)>, Broken> {
    Ok(match event {
        Event::Apply(object) => Event::Apply(decode(object)?),
        Event::Delete(object) => Event::Delete(decode(object)?),
        Event::Init => Event::Init,
        Event::InitApply(object) => Event::InitApply(decode(object)?),
        Event::InitDone => Event::InitDone,
    })
}
