//! Watches -> stores -> wake-ups. One watch per type; a broken watch is started again with back-off, and what was
//! deleted while it was broken is found by comparing the new list with the store.

mod guard;
mod notices;
mod relist;
mod routes;

use std::fmt::Debug;
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt as _;
use k8s_openapi::api::batch::v1::{CronJob, Job};
use k8s_openapi::api::core::v1::{ConfigMap, Namespace, PersistentVolumeClaim, Pod, Secret, ServiceAccount};
use kube::api::Api;
use kube::core::PartialObjectMeta;
use kube::runtime::watcher::{self, Event};
use kube::runtime::{WatchStreamExt as _, watcher as watch};
use kube::{Client, Resource, ResourceExt as _};
use serde::de::DeserializeOwned;
use tokio::sync::watch as signal;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{debug, warn};

use crate::context::Context;
use crate::world::{
    ClaimView, CronJobView, JobView, Key, MetaView, NamespaceView, PodView, Store, Stored, Undecodable, World,
};
use crds::names;

use guard::Guard;
use relist::Relist;
pub use routes::Routes;

/// Objects that we made carry it.
fn ours() -> watcher::Config {
    everything().labels(&format!("{}={}", names::LABEL_APP, names::APP))
}

/// A silently cut connection hides changes until the watch ends by itself, hence shorter than the server's default of
/// five minutes. Pages are small so that a list of thousands never lies in memory whole.
fn everything() -> watcher::Config {
    watcher::Config::default().timeout(120).page_size(100)
}

/// Starts all watches. The receiver turns true when each has listed once.
pub fn start(
    client: &Client,
    context: &Arc<Context>,
    routes: &Arc<Routes>,
    tasks: &TaskTracker,
    shutdown: &CancellationToken,
) -> signal::Receiver<bool> {
    let (done, mut lists) = tokio::sync::mpsc::channel::<&'static str>(16);
    let mut expected = 0usize;
    let mut launch = |watch: Watch| {
        expected += 1;
        let (done, shutdown) = (done.clone(), shutdown.clone());
        tasks.spawn(async move {
            tokio::select! {
                () = watch.run(done) => {}
                () = shutdown.cancelled() => {}
            }
        });
    };
    let w = |name| Wiring {
        name,
        client: client.clone(),
        context: context.clone(),
        routes: routes.clone(),
        echoes: false,
    };
    launch(
        w("ResticRepository")
            .with_echoes()
            .guarded(|w| &w.repositories, Routes::repository),
    );
    launch(w("ResticBackup").guarded(|w| &w.backups, Routes::backup));
    launch(w("ResticRestore").guarded(|w| &w.restores, Routes::restore));
    launch(
        w("GlobalRetentionPolicy")
            .with_echoes()
            .guarded(|w| &w.policies, Routes::policy),
    );
    launch(w("CronJob").watch::<CronJob, _>(ours(), CronJobView::of, |w| &w.cron_jobs, Routes::cron_job));
    launch(w("Job").watch::<Job, _>(ours(), JobView::of, |w| &w.jobs, Routes::job));
    launch(w("Pod").watch::<Pod, _>(ours(), PodView::of, |w| &w.pods, Routes::pod));
    launch(w("ServiceAccount").metadata::<ServiceAccount>(ours(), |w| &w.service_accounts, Routes::owned));
    launch(w("ConfigMap").metadata::<ConfigMap>(ours(), |w| &w.config_maps, Routes::config_map));
    launch(w("Secret").metadata::<Secret>(everything(), |w| &w.secrets, Routes::secret));
    launch(w("PersistentVolumeClaim").watch::<PersistentVolumeClaim, _>(
        everything(),
        ClaimView::of,
        |w| &w.claims,
        Routes::claim,
    ));
    launch(w("Namespace").watch::<PartialObjectMeta<Namespace>, _>(
        everything(),
        NamespaceView::of,
        |w| &w.namespaces,
        Routes::namespace,
    ));
    notices::start(client, context, routes, tasks, shutdown);
    let (synced, receiver) = signal::channel(false);
    let routes = routes.clone();
    tasks.spawn(async move {
        for _ in 0..expected {
            match lists.recv().await {
                Some(name) => debug!(resource = name, "listed"),
                None => return,
            }
        }
        routes.open();
        synced.send_replace(true);
        // Kept until the end: a dropped sender would look like a change to those who wait.
        synced.closed().await;
    });
    receiver
}

/// A watch ready to run.
struct Watch {
    run: Box<
        dyn FnOnce(tokio::sync::mpsc::Sender<&'static str>) -> futures::future::BoxFuture<'static, ()> + Send,
    >,
}

impl Watch {
    async fn run(self, listed: tokio::sync::mpsc::Sender<&'static str>) {
        (self.run)(listed).await;
    }
}

/// What a watch is wired to.
struct Wiring {
    name: &'static str,
    client: Client,
    context: Arc<Context>,
    routes: Arc<Routes>,
    /// The echo of an own write is news to others: backups wait for what their repository's status says.
    echoes: bool,
}

/// An object that does not decode.
type Broken = Box<(Key, Undecodable)>;

/// Tells the routes that an object changed or went.
type Route<V> = fn(&Routes, &World, &Key, &V);

impl Wiring {
    /// Routes the echoes of own writes too.
    fn with_echoes(self) -> Wiring {
        Wiring { echoes: true, ..self }
    }

    /// A type whose objects are cut down to a view.
    fn watch<K, V>(
        self,
        config: watcher::Config,
        view: fn(&K) -> V,
        store: fn(&World) -> &Store<V>,
        route: Route<V>,
    ) -> Watch
    where
        K: Resource<DynamicType = ()> + Clone + DeserializeOwned + Debug + Send + 'static,
        V: Stored,
    {
        let api = Api::<K>::all(self.client.clone());
        let decode = move |object: K| Ok((key(&object), view(&object)));
        self.stream(watch(api, config), decode, store, route)
    }

    /// A type of which only metadata is transferred and kept.
    fn metadata<K>(
        self,
        config: watcher::Config,
        store: fn(&World) -> &Store<MetaView>,
        route: Route<MetaView>,
    ) -> Watch
    where
        K: Resource<DynamicType = ()> + Clone + DeserializeOwned + Debug + Send + Sync + 'static,
    {
        let api = Api::<PartialObjectMeta<K>>::all(self.client.clone());
        let decode = move |object: PartialObjectMeta<K>| Ok((key(&object), MetaView::of(&object)));
        self.stream(watch(api, config), decode, store, route)
    }

    /// One of our own kinds: an object that does not decode is reported and leaves its neighbours alone.
    fn guarded<K>(self, store: fn(&World) -> &Store<K>, route: Route<K>) -> Watch
    where
        K: Resource<DynamicType = ()> + Stored + Clone + DeserializeOwned + Debug,
    {
        let api = Api::<Guard<K>>::all(self.client.clone());
        let decode = move |guard: Guard<K>| match guard.object {
            Ok(mut object) => {
                object.managed_fields_mut().clear();
                Ok((key(&object), object))
            }
            Err(object) => {
                let (namespace, name) = (object.meta.namespace.as_deref(), object.meta.name.as_deref());
                let key = Key::new(namespace.unwrap_or_default(), name.unwrap_or_default());
                Err(Box::new((key, object)))
            }
        };
        self.stream(watch(api, everything()), decode, store, route)
    }

    fn stream<T, V, S, D>(
        self,
        stream: S,
        decode: D,
        store: fn(&World) -> &Store<V>,
        route: Route<V>,
    ) -> Watch
    where
        T: Send + 'static,
        V: Stored,
        S: futures::Stream<Item = watcher::Result<Event<T>>> + Send + 'static,
        D: Fn(T) -> Result<(Key, V), Broken> + Send + 'static,
    {
        let Wiring {
            name,
            context,
            routes,
            echoes,
            ..
        } = self;
        let run = move |listed: tokio::sync::mpsc::Sender<&'static str>| -> futures::future::BoxFuture<'static, ()> {
            Box::pin(async move {
                let mut stream = Box::pin(stream.default_backoff());
                let mut relist = Relist::default();
                let mut first = true;
                while let Some(event) = stream.next().await {
                    let event = match event {
                        Ok(event) => event,
                        Err(error) => {
                            context.metrics.watch_error(name);
                            warn!(resource = name, %error, "a watch broke and starts again");
                            continue;
                        }
                    };
                    context.metrics.watch_event(name);
                    let done = matches!(event, Event::InitDone);
                    let deleted = matches!(event, Event::Delete(_));
                    let decoded = event_map(event, &decode);
                    let changes = match decoded {
                        Ok(event) => relist.apply(store(&context.world), event, echoes),
                        Err(broken) => {
                            let (key, object) = *broken;
                            if !deleted {
                                context.metrics.undecodable(name);
                                warn!(resource = name, object = %key, error = object.error, "an object could not be decoded and is left as it is");
                            }
                            relist.undecodable(store(&context.world), key, object, deleted)
                        }
                    };
                    for (key, value) in changes {
                        route(&routes, &context.world, &key, &value);
                    }
                    if done && first {
                        first = false;
                        // An error means that the spoke is stopping.
                        let _ = listed.send(name).await;
                    }
                    // A long list must not keep the other tasks of this thread waiting.
                    tokio::time::sleep(Duration::ZERO).await;
                }
            })
        };
        Watch { run: Box::new(run) }
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
