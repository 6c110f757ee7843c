//! A command in another pod, by the API server.

use clap::Args;
use crds::names;
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, Status};
use kube::api::{Api, ListParams};
use kube::core::Selector;
use kube::{Client, ResourceExt as _};
use std::time::Duration;
use tokio::time::{Instant, sleep};

use super::At;
use super::offer::{Running, Source};
use super::tail;
use super::whole::Mark;
use crate::exec::{self, Call};
use crate::pod::stream::Exec as Wanted;

/// A pod that is just being replaced is waited for.
const PATIENCE: Duration = Duration::from_mins(2);
const AGAIN: Duration = Duration::from_secs(1);
/// Bytes of output on their way to restic.
const ROOM: usize = 64 << 10;

/// A command in another pod of this pod's namespace.
#[derive(Clone, Debug, Args)]
pub struct Exec {
    #[command(flatten)]
    pub at: At,
    /// metav1.LabelSelector as JSON.
    #[arg(long, value_parser = selector)]
    selector: LabelSelector,
    #[arg(long)]
    container: Option<String>,
    /// Program and arguments.
    #[arg(last = true, required = true)]
    command: Vec<String>,
}

fn selector(text: &str) -> Result<LabelSelector, serde_json::Error> {
    serde_json::from_str(text)
}

impl Source for Exec {
    async fn start(self) -> Result<Running, String> {
        let Exec {
            selector,
            container,
            command,
            ..
        } = self;
        let client = Client::try_default()
            .await
            .map_err(|error| format!("no client of the API server: {error}"))?;
        let pods: Api<Pod> = Api::default_namespaced(client);
        let pod = choose(&pods, &selector).await?;
        execute(
            &pods,
            &pod,
            Wanted {
                selector,
                container,
                command,
            },
        )
        .await
    }
}

/// The pod in which it runs.
async fn choose(pods: &Api<Pod>, selector: &LabelSelector) -> Result<Pod, String> {
    let wanted = Selector::try_from(selector.clone())
        .map_err(|error| format!("the selector cannot be used: {error}"))?;
    let parameters = ListParams::default().labels_from(&wanted);
    let end = Instant::now() + PATIENCE;
    loop {
        let why = match pods.list(&parameters).await {
            Ok(list) => match oldest_ready(list.items) {
                Some(pod) => return Ok(pod),
                None => format!("no ready pod matches {wanted}"),
            },
            Err(error) => format!("the pods cannot be listed: {error}"),
        };
        if Instant::now() >= end {
            return Err(why);
        }
        sleep(AGAIN).await;
    }
}

/// The oldest pod that is ready, by its name where several are as old. Never one of ours: in those that run restic are
/// the credentials of a repository.
fn oldest_ready(pods: Vec<Pod>) -> Option<Pod> {
    let ready = |pod: &Pod| {
        let conditions = pod.status.as_ref().and_then(|s| s.conditions.as_ref());
        let ready = conditions
            .into_iter()
            .flatten()
            .any(|c| c.type_ == "Ready" && c.status == "True");
        let ours = pod.labels().contains_key(names::LABEL_TYPE);
        ready && !ours && pod.metadata.deletion_timestamp.is_none()
    };
    let age = |pod: &Pod| (pod.creation_timestamp().map(|t| t.0), pod.name_any());
    pods.into_iter().filter(ready).min_by_key(age)
}

async fn execute(pods: &Api<Pod>, pod: &Pod, wanted: Wanted) -> Result<Running, String> {
    let name = pod.name_any();
    let container = exec::container(pod, wanted.container.as_deref());
    let place = format!("pod {name}, container {container}");
    let mark = Mark::new();
    let marked = mark.marked(&wanted.command);
    let call = |command| Call {
        pod: &name,
        container: &container,
        command,
    };
    let refused = |error| format!("the command cannot be run in {place}: {error}");
    let mut process = exec::start(pods, call(&marked)).await.map_err(refused)?;
    let (Some(output), Some(words), Some(status)) =
        (process.stdout(), process.stderr(), process.take_status())
    else {
        return Err("the API server opened no streams".to_owned());
    };
    let words = tokio::spawn(tail::pass_on(words));
    let (near, far) = tokio::io::duplex(ROOM);
    let passed = tokio::spawn(async move { mark.pass(output, near).await });
    let end = async move {
        let status = status.await;
        let words = words.await.unwrap_or_default();
        let whole = matches!(passed.await, Ok(Ok(true)));
        // Until here: it is what reads the connection.
        drop(process);
        ended(&place, status, whole, &words)
    };
    Ok(Running {
        output: Box::new(far),
        end: Box::pin(end),
    })
}

/// What the kubelet's last word means. Without one the connection was cut, and nothing is known of the command; and a
/// success counts only where all of the output has arrived.
fn ended(place: &str, status: Option<Status>, whole: bool, words: &str) -> Result<(), String> {
    let Some(status) = status else {
        return Err(format!("the connection to {place} ended before the command did"));
    };
    if status.status.as_deref() != Some("Success") {
        let message = status.message.unwrap_or_default();
        // runc's words for a program that is not there.
        let shell = message.contains("unable to start container process") && message.contains("\"sh\"");
        let hint = if shell {
            ": the container needs a shell (sh), which shows that all of the output has arrived; use source.stdin.pod \
             with an image that has one"
        } else {
            ""
        };
        return Err(format!("in {place}: {message}{hint}: {words}"));
    }
    if whole {
        return Ok(());
    }
    Err(format!(
        "in {place}: the command succeeded, and the end of its output was lost on the way, which happens when the node is \
         overloaded or the storage is slower than the command; let it write to a file of a volume that is backed up, or run \
         it in a pod of its own (source.stdin.pod)"
    ))
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    #[test]
    fn only_the_kubelets_word_is_a_success() {
        let status = |value: Value| Some(serde_json::from_value(value).unwrap());
        let success = || status(json!({ "status": "Success" }));
        assert_eq!(ended("pod a", success(), true, ""), Ok(()));
        assert!(
            ended("pod a", None, true, "")
                .unwrap_err()
                .contains("ended before")
        );
        assert!(
            ended("pod a", success(), false, "")
                .unwrap_err()
                .contains("was lost")
        );
        let failed = status(
            json!({ "status": "Failure", "message": "command terminated with non-zero exit code: 7" }),
        );
        let text = ended("pod a", failed, false, "no such table").unwrap_err();
        assert!(
            text.contains("exit code: 7") && text.contains("no such table"),
            "{text}"
        );
    }

    #[test]
    fn the_oldest_pod_that_is_ready_is_taken() {
        let pod = |name: &str, created: &str, ready: &str, deleting: bool| -> Pod {
            let deleted = deleting.then_some("2026-01-05T00:00:00Z");
            serde_json::from_value(json!({
                "metadata": { "name": name, "creationTimestamp": created, "deletionTimestamp": deleted },
                "status": { "conditions": [{ "type": "Ready", "status": ready }] },
            }))
            .unwrap()
        };
        let mut ours = pod("with-credentials", "2026-01-01T00:00:00Z", "True", false);
        ours.metadata.labels = Some([(names::LABEL_TYPE.to_owned(), "backup".to_owned())].into());
        let pods = vec![
            pod("young", "2026-01-03T00:00:00Z", "True", false),
            pod("unready", "2026-01-01T00:00:00Z", "False", false),
            pod("deleting", "2026-01-01T00:00:00Z", "True", true),
            pod("old", "2026-01-02T00:00:00Z", "True", false),
            ours,
        ];
        assert_eq!(oldest_ready(pods).unwrap().name_any(), "old");
        assert!(oldest_ready(Vec::new()).is_none());
    }
}
