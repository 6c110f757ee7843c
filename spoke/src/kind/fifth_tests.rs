//! A fifth kind, with nothing but its pure functions, through driver and supervisor against an API server in memory.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use crds::ResticRepository;
use crds::conditions::{self, Conditions, types};
use futures::FutureExt as _;
use futures::future::BoxFuture;
use k8s_openapi::api::core::v1::ServiceAccount;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, ObjectMeta};
use kube::CustomResource;
use ractor::Actor;
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::*;
use crate::context::test_context_on;
use crate::pod;
use crate::secrets::Credentials as Opened;
use crate::testing::{Action, ApiServer, Fault};
use crate::world::{Store, Stored, World};

#[derive(CustomResource, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[kube(
    group = "backup.resticbackup.io",
    version = "v1alpha1",
    kind = "Greeting",
    namespaced,
    status = "GreetingStatus",
    schema = "disabled"
)]
pub struct GreetingSpec {
    text: String,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct GreetingStatus {
    #[serde(default)]
    conditions: Vec<Condition>,
    echo: Option<String>,
}

impl Stored for Greeting {
    fn uid(&self) -> &str {
        self.metadata.uid.as_deref().unwrap_or_default()
    }
    fn version(&self) -> u64 {
        let version = self.metadata.resource_version.as_deref();
        version.and_then(|v| v.parse().ok()).unwrap_or_default()
    }
}

impl crate::notify::Notifying for Greeting {}
impl crate::metrics::Measured for Greeting {}

impl crds::effect::WithoutEffect for Greeting {}

impl ResourceStatus for GreetingStatus {
    fn conditions(&self) -> &[Condition] {
        &self.conditions
    }
    fn conditions_mut(&mut self) -> &mut Vec<Condition> {
        &mut self.conditions
    }
}

/// The store is its own: the world has none for it.
#[derive(Default)]
struct Greetings {
    store: Arc<Store<Greeting>>,
    planned: Arc<AtomicU32>,
    performed: Arc<AtomicU32>,
}

#[derive(Clone, Debug)]
enum Shout {
    Aloud(String),
}

impl Controller for Greetings {
    type Resource = Greeting;
    type Status = GreetingStatus;
    type Valid = String;
    type Refusal = &'static str;
    type Observed = ();
    type State = ();
    type Work = Shout;
    type Found = Option<String>;
    const NAME: &'static str = "Greeting";
    const FINALIZER: Option<&'static str> = Some("original/finalizer");

    fn store<'a>(&'a self, _: &'a World) -> &'a Store<Greeting> {
        &self.store
    }

    fn validate(&self, _: &Key, greeting: &Greeting) -> Result<String, &'static str> {
        match greeting.spec.text.as_str() {
            "" => Err("spec.text is empty"),
            text => Ok(text.to_owned()),
        }
    }

    fn observe(&self, _: Cache<'_>, _: &Input<'_, Self>) {}

    fn plan(&self, input: &Input<'_, Self>, (): &()) -> Plan<Self> {
        self.planned.fetch_add(1, Ordering::Relaxed);
        let mut plan: Plan<Self> = Plan::status(input.status(), ());
        match input.valid {
            Ok(text) if text == "poison" => panic!("poison"),
            Ok(text) => {
                let metadata = ObjectMeta {
                    name: Some(format!("greeting-{}", input.key.name)),
                    namespace: Some(input.key.namespace.to_string()),
                    ..ObjectMeta::default()
                };
                plan.children.account = Some(pod::account(metadata));
                for found in input.found {
                    plan.status.echo = Some(found.clone().unwrap_or_else(|| "panicked".to_owned()));
                }
                if text == "impatient" {
                    plan.next = Some(input.now.wall);
                }
                if plan.status.echo.is_none() && input.running.is_empty() {
                    plan.work.push(Task {
                        repository: Arc::new(ResticRepository::new(
                            "r",
                            serde_json::from_value(json!({
                            "repositoryURL": "s3:h/b", "credentialsSecretRef": { "name": "s" } }))
                            .unwrap(),
                        )),
                        work: Shout::Aloud(text.clone()),
                    });
                }
            }
            Err(error) => {
                Conditions::at(&mut plan.status.conditions, input.generation(), input.now.wall).set(
                    types::READY,
                    false,
                    "Invalid",
                    error,
                );
            }
        }
        plan
    }

    fn conclude(&self, input: &Input<'_, Self>, (): &(), settled: &mut Settled<Self>, applied: &Applied) {
        let (list, generation, now) = (&mut settled.status.conditions, input.generation(), input.now.wall);
        match &applied.refused {
            Some(refused) => failed_as(list, refused, generation, now),
            None if input.valid.is_ok() => {
                Conditions::at(list, generation, now).set(types::READY, true, "Greeted", "hello");
            }
            None => {}
        }
    }

    fn perform(
        &self,
        _: Tools,
        task: Task<Shout>,
        _: Result<Opened, Unreadable>,
    ) -> BoxFuture<'static, Option<String>> {
        let Shout::Aloud(text) = task.work;
        self.performed.fetch_add(1, Ordering::Relaxed);
        async move {
            assert_ne!(text, "cough", "work that panics");
            tokio::time::sleep(Duration::from_secs(5)).await;
            Some(text.to_uppercase())
        }
        .boxed()
    }

    fn panicked(_: &Shout) -> Option<String> {
        None
    }
}

struct Bed {
    server: ApiServer,
    store: Arc<Store<Greeting>>,
    planned: Arc<AtomicU32>,
    performed: Arc<AtomicU32>,
    kind: KindHandle,
}

impl Bed {
    async fn start() -> Bed {
        let server = ApiServer::new();
        let context = test_context_on(server.client());
        let greetings = Greetings::default();
        let (store, planned) = (greetings.store.clone(), greetings.planned.clone());
        let performed = greetings.performed.clone();
        let kind = Arc::new(Driver::new(context.clone(), greetings));
        let (actor, _) = Actor::spawn(None, Supervisor { kind, context }, ())
            .await
            .unwrap();
        let bed = Bed {
            server,
            store,
            planned,
            performed,
            kind: KindHandle::new(actor),
        };
        bed.kind.lead();
        bed
    }

    /// A person applies it, and its watch takes it into the cache.
    fn put(&self, name: &str, text: &str) -> Key {
        let greeting = json!({ "apiVersion": "backup.resticbackup.io/v1alpha1", "kind": "Greeting",
            "metadata": { "name": name, "namespace": "default" }, "spec": { "text": text } });
        self.seen(&self.server.put(&greeting))
    }

    fn seen(&self, stored: &serde_json::Value) -> Key {
        let greeting: Greeting = serde_json::from_value(stored.clone()).unwrap();
        let key = Key::new("default", greeting.metadata.name.as_deref().unwrap());
        self.store.put(key.clone(), Arc::new(greeting));
        self.kind.poke(key.clone(), Cause::Changed);
        key
    }

    fn status(&self, name: &str) -> GreetingStatus {
        let greeting: Option<Greeting> = self.server.get("default", name);
        greeting.and_then(|g| g.status).unwrap_or_default()
    }

    /// Waits until Ready has this reason.
    async fn ready(&self, name: &str, reason: &str) -> Condition {
        let is = |_: &ApiServer| {
            let status = self.status(name);
            conditions::get(&status.conditions, types::READY)
                .filter(|c| c.reason == reason)
                .cloned()
        };
        self.server.until(reason, is).await
    }

    async fn echo(&self, name: &str, echo: &str) {
        let is = |_: &ApiServer| (self.status(name).echo.as_deref() == Some(echo)).then_some(());
        self.server.until(echo, is).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_fifth_kind_is_its_folder() {
    let bed = Bed::start().await;
    let key = bed.put("hello", "hello");
    bed.ready("hello", "Greeted").await;
    bed.echo("hello", "HELLO").await;
    let account: Option<ServiceAccount> = bed.server.get("default", "greeting-hello");
    assert!(account.is_some());
    bed.put("empty", "");
    let invalid = bed.ready("empty", "Invalid").await;
    assert_eq!(invalid.message, "spec.text is empty");
    // Nothing changed: a turn costs no request.
    bed.server.forget_requests();
    let before = bed.planned.load(Ordering::Relaxed);
    bed.kind.poke(key, Cause::Related);
    bed.server
        .until("a turn", |_| {
            (bed.planned.load(Ordering::Relaxed) > before).then_some(())
        })
        .await;
    tokio::time::sleep(Duration::from_secs(3600)).await;
    assert_eq!(
        bed.planned.load(Ordering::Relaxed),
        before + 1,
        "no timer without a reason"
    );
    assert_eq!(bed.server.requests(), []);
}

#[tokio::test(start_paused = true)]
async fn a_new_leader_writes_nothing_that_is_right_already() {
    let bed = Bed::start().await;
    bed.put("hello", "hello");
    bed.echo("hello", "HELLO").await;
    bed.ready("hello", "Greeted").await;
    bed.kind.follow().await;
    bed.server.forget_requests();
    let before = bed.planned.load(Ordering::Relaxed);
    bed.kind.lead();
    bed.server
        .until("a turn", |_| {
            (bed.planned.load(Ordering::Relaxed) > before).then_some(())
        })
        .await;
    tokio::time::sleep(Duration::from_secs(60)).await;
    // The driver's own cache of accounts is warm, as the watch keeps it.
    assert_eq!(bed.server.writes(), []);
}

#[tokio::test(start_paused = true)]
async fn three_crashes_are_reported_and_leave_the_neighbours_alone() {
    let bed = Bed::start().await;
    // The API server does not answer for the one that crashes.
    bed.server.fault(
        Fault::new(Action::Delay(Duration::from_secs(12)))
            .on("apply", "greetings/status")
            .named("bad"),
    );
    bed.put("bad", "poison");
    let crashes = |_: &ApiServer| (bed.planned.load(Ordering::Relaxed) >= 3).then_some(());
    let start = tokio::time::Instant::now();
    bed.server.until("three crashes", crashes).await;
    assert!(
        start.elapsed() >= Duration::from_millis(1500),
        "with back-off: {:?}",
        start.elapsed()
    );
    // While its crash is being reported, neighbours are served.
    bed.put("good", "good");
    bed.ready("good", "Greeted").await;
    assert!(conditions::get(&bed.status("bad").conditions, types::READY).is_none());
    let crashed = bed.ready("bad", "Crashed").await;
    assert!(
        crashed.status == "False" && crashed.message.contains("times in a row"),
        "{crashed:?}"
    );
    // Corrected, it works again.
    bed.server.heal();
    let mut greeting: Greeting = bed.server.get("default", "bad").unwrap();
    greeting.spec.text = "fine".to_owned();
    bed.seen(&bed.server.put(&greeting));
    bed.ready("bad", "Greeted").await;
}

#[tokio::test(start_paused = true)]
async fn a_successor_of_the_same_name_starts_anew() {
    let bed = Bed::start().await;
    let key = bed.put("hello", "hello");
    bed.echo("hello", "HELLO").await;
    let old = bed.store.get(&key).unwrap();
    bed.server.delete::<Greeting>("default", "hello");
    bed.store.remove(&key, None);
    bed.kind.gone(key.clone(), Stored::uid(&*old).to_owned());
    bed.put("hello", "again");
    bed.echo("hello", "AGAIN").await;
    assert_ne!(Stored::uid(&*bed.store.get(&key).unwrap()), Stored::uid(&*old));
}

#[tokio::test(start_paused = true)]
async fn a_refused_object_is_named_and_tried_again() {
    let bed = Bed::start().await;
    let refuse = Action::Refuse(403, "exceeded quota".to_owned());
    bed.server
        .fault(Fault::new(refuse).on("apply", "serviceaccounts"));
    bed.put("hello", "hello");
    let refused = bed.ready("hello", "ServiceAccountFailed").await;
    assert!(
        refused
            .message
            .contains("ServiceAccount greeting-hello: exceeded quota"),
        "{}",
        refused.message
    );
    assert_eq!(
        bed.performed.load(Ordering::Relaxed),
        0,
        "no work for what cannot be made"
    );
    bed.server.heal();
    bed.ready("hello", "Greeted").await;
    bed.echo("hello", "HELLO").await;
}

#[tokio::test(start_paused = true)]
async fn a_result_is_given_again_until_its_status_is_written() {
    let bed = Bed::start().await;
    bed.put("hello", "hello");
    bed.ready("hello", "Greeted").await;
    // Away when the work ends, for a minute.
    bed.server.away(Duration::from_secs(60));
    bed.echo("hello", "HELLO").await;
    assert_eq!(bed.performed.load(Ordering::Relaxed), 1, "it was not done twice");
}

#[tokio::test(start_paused = true)]
async fn what_is_due_at_once_waits_for_a_status_that_cannot_be_written() {
    let bed = Bed::start().await;
    let refuse = Action::Refuse(403, "not yours".to_owned());
    bed.server
        .fault(Fault::new(refuse).on("apply", "greetings/status"));
    bed.put("hello", "impatient");
    tokio::time::sleep(Duration::from_secs(60)).await;
    let turns = bed.planned.load(Ordering::Relaxed);
    assert!((2..20).contains(&turns), "{turns} turns in a minute");
}

#[tokio::test(start_paused = true)]
async fn an_edit_that_comes_back_with_the_own_status_is_looked_at() {
    let bed = Bed::start().await;
    let planned = json!({ "apiVersion": "backup.resticbackup.io/v1alpha1", "kind": "Greeting",
        "metadata": { "name": "hello", "namespace": "default" }, "spec": { "text": "hello" },
        "status": { "echo": "HELLO" } });
    let planned = bed.server.put(&planned);
    // Its watch is late: the cache still has the state before.
    bed.server.edit::<Greeting>("default", "hello", |greeting| {
        greeting["spec"]["text"] = json!("")
    });
    bed.seen(&planned);
    bed.ready("hello", "Invalid").await;
}

#[tokio::test(start_paused = true)]
async fn a_panic_of_work_is_a_result() {
    let bed = Bed::start().await;
    bed.put("hello", "cough");
    bed.echo("hello", "panicked").await;
}

#[tokio::test(start_paused = true)]
async fn work_of_a_term_that_ended_is_started_anew() {
    let bed = Bed::start().await;
    bed.put("hello", "hello");
    bed.ready("hello", "Greeted").await;
    bed.kind.follow().await;
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert_eq!(bed.status("hello").echo, None, "its result came to nobody");
    bed.kind.lead();
    bed.echo("hello", "HELLO").await;
    assert_eq!(bed.performed.load(Ordering::Relaxed), 2);
}

#[tokio::test(start_paused = true)]
async fn the_original_operators_finalizer_is_taken_off() {
    let bed = Bed::start().await;
    bed.server.put(&json!({ "apiVersion": "backup.resticbackup.io/v1alpha1", "kind": "Greeting",
        "metadata": { "name": "hello", "namespace": "default", "finalizers": ["original/finalizer", "other"] },
        "spec": { "text": "hello" } }));
    bed.server.delete::<Greeting>("default", "hello");
    let deleting: Greeting = bed.server.get("default", "hello").unwrap();
    bed.seen(&serde_json::to_value(&deleting).unwrap());
    let finalizers = |server: &ApiServer| {
        server
            .get::<Greeting>("default", "hello")
            .unwrap()
            .metadata
            .finalizers
    };
    bed.server
        .until("the finalizer", |server| {
            (finalizers(server) == Some(vec!["other".to_owned()])).then_some(())
        })
        .await;
    assert_eq!(bed.planned.load(Ordering::Relaxed), 0, "nothing is made for it");
}

#[tokio::test(start_paused = true)]
async fn it_is_taken_off_before_the_object_is_deleted() {
    let bed = Bed::start().await;
    let greeting = json!({ "apiVersion": "backup.resticbackup.io/v1alpha1", "kind": "Greeting",
        "metadata": { "name": "hello", "namespace": "default", "finalizers": ["original/finalizer"] },
        "spec": { "text": "hello" } });
    bed.server.put(&greeting);
    let stored: Greeting = bed.server.get("default", "hello").unwrap();
    bed.seen(&serde_json::to_value(&stored).unwrap());
    bed.ready("hello", "Greeted").await;
    let stored: Greeting = bed.server.get("default", "hello").unwrap();
    assert!(stored.metadata.finalizers.unwrap_or_default().is_empty());
    bed.server.delete::<Greeting>("default", "hello");
    assert!(bed.server.get::<Greeting>("default", "hello").is_none());
}

/// Codes of the answers to patches that take a finalizer off.
fn patches(server: &ApiServer) -> Vec<u16> {
    let requests = server.requests().into_iter();
    let patches = requests.filter(|request| request.verb == "patch");
    patches.filter_map(|request| request.code).collect()
}

#[tokio::test(start_paused = true)]
async fn a_finalizer_that_was_taken_off_is_not_taken_off_again_before_the_watch_shows_it() {
    let bed = Bed::start().await;
    let key = bed.put("hello", "hello");
    // From now on its status stays as it is: no write of it brings the cache up to date.
    bed.echo("hello", "HELLO").await;
    bed.server.edit::<Greeting>("default", "hello", |greeting| {
        greeting["metadata"]["finalizers"] = json!(["original/finalizer"]);
    });
    bed.seen(&bed.server.json::<Greeting>("default", "hello"));
    let finalizers = |greeting: &Greeting| greeting.metadata.finalizers.clone().unwrap_or_default();
    let released = |server: &ApiServer| {
        let cached = bed.store.get(&key)?;
        (finalizers(&cached).is_empty() && !patches(server).is_empty()).then_some(())
    };
    bed.server.until("the answer is in the cache", released).await;
    let planned = bed.planned.load(Ordering::Relaxed);
    bed.kind.poke(key.clone(), Cause::Related);
    bed.server
        .until("another turn", |_| {
            (bed.planned.load(Ordering::Relaxed) > planned).then_some(())
        })
        .await;
    assert_eq!(patches(&bed.server), [200]);
}

#[tokio::test(start_paused = true)]
async fn a_finalizer_that_cannot_be_taken_off_keeps_nothing_back_and_is_tried_again() {
    for code in [409, 403] {
        let bed = Bed::start().await;
        let refuse = Action::Refuse(code, "no".to_owned());
        bed.server
            .fault(Fault::new(refuse).on("patch", "greetings").times(2));
        let greeting = json!({ "apiVersion": "backup.resticbackup.io/v1alpha1", "kind": "Greeting",
            "metadata": { "name": "hello", "namespace": "default", "finalizers": ["original/finalizer"] },
            "spec": { "text": "hello" } });
        bed.seen(&bed.server.put(&greeting));
        bed.ready("hello", "Greeted").await;
        let done = |server: &ApiServer| (patches(server) == [code, code, 200]).then_some(());
        bed.server.until("it is tried again", done).await;
    }
}
