//! A hook that is a command in running pods.

use std::time::Duration;

use crds::names;
use futures::future::join_all;
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use kube::ResourceExt as _;
use kube::api::{Api, ListParams};
use kube::core::Selector;
use tokio::time::timeout;

use super::{Attempt, Runner, log};
use crate::exec::{self, Call, Trouble};
use crate::runs::hooks::How;

/// Longest time for the list of pods.
const LIST: Duration = Duration::from_secs(10);

impl Runner {
    /// Runs the command in each running pod that is selected, at the same time.
    pub(super) async fn exec(
        &self,
        selector: &LabelSelector,
        container: Option<&str>,
        command: &[String],
        limit: Duration,
        begin: impl FnOnce() -> Result<(), String>,
    ) -> Attempt {
        let api = Api::<Pod>::namespaced(self.client.clone(), &self.namespace);
        let pods = match self.running(&api, selector).await {
            Ok(pods) => pods,
            Err(text) => return Attempt::NotBegun(text),
        };
        if let Err(text) = begin() {
            return Attempt::NotBegun(text);
        }
        let runs = pods
            .iter()
            .map(|pod| in_pod(&api, pod, container, command, limit));
        combine(join_all(runs).await)
    }

    async fn running(&self, api: &Api<Pod>, selector: &LabelSelector) -> Result<Vec<Pod>, String> {
        let labels = Selector::try_from(selector.clone()).map_err(|error| error.to_string())?;
        let listed = timeout(LIST, api.list(&ListParams::default().labels_from(&labels))).await;
        let pods = match listed {
            Ok(Ok(list)) => list.items,
            Ok(Err(error)) => return Err(format!("pods cannot be listed: {error}")),
            Err(_) => return Err(format!("pods cannot be listed: no answer within {LIST:?}")),
        };
        let all = pods.len();
        let pods = eligible(pods);
        if pods.is_empty() {
            return Err(format!(
                "no pod with the labels {labels} is running ({all} with these labels); correct podSelector, or start the application"
            ));
        }
        Ok(pods)
    }
}

/// Pods of the operator's making hold the keys of repositories: no command runs there.
fn is_ours(pod: &Pod) -> bool {
    pod.labels().contains_key(names::LABEL_TYPE)
}

/// Those in which a command runs, in order.
fn eligible(mut pods: Vec<Pod>) -> Vec<Pod> {
    pods.retain(|pod| runs(pod) && !is_ours(pod));
    pods.sort_by_key(|pod| pod.name_any());
    pods
}

fn runs(pod: &Pod) -> bool {
    let phase = pod.status.as_ref().and_then(|status| status.phase.as_deref());
    phase == Some("Running") && pod.metadata.deletion_timestamp.is_none()
}

/// What became of the command in one pod.
async fn in_pod(
    api: &Api<Pod>,
    pod: &Pod,
    container: Option<&str>,
    command: &[String],
    limit: Duration,
) -> (String, Result<exec::Ended, Stop>) {
    let name = pod.name_any();
    let call = Call {
        pod: &name,
        container: &exec::container(pod, container),
        command,
    };
    let write = |bytes: &[u8]| log(String::from_utf8_lossy(bytes).trim_end());
    let ended = match timeout(limit, exec::run(api, call, write)).await {
        Ok(ended) => ended.map_err(Stop::Trouble),
        Err(_) => Err(Stop::Limit(limit)),
    };
    (name, ended)
}

/// Why a command has no exit code.
enum Stop {
    Trouble(Trouble),
    Limit(Duration),
}

/// The attempt as a whole: it succeeded where it did in every pod.
fn combine(results: Vec<(String, Result<exec::Ended, Stop>)>) -> Attempt {
    let mut texts = Vec::new();
    let (mut begun, mut unknown) = (false, false);
    for (pod, result) in results {
        let text = match result {
            Ok(ended) => {
                begun = true;
                if ended.code == 0 {
                    continue;
                }
                format!("exit code {}: {}", ended.code, ended.output)
            }
            Err(Stop::Trouble(Trouble::NotStarted(text))) => text,
            Err(Stop::Trouble(Trouble::NoEnd(text))) => {
                (begun, unknown) = (true, true);
                text
            }
            Err(Stop::Limit(limit)) => {
                begun = true;
                format!("it did not end within {limit:?}, and may go on in the pod")
            }
        };
        texts.push(format!("pod {pod}: {}", text.trim_end_matches([':', ' '])));
    }
    let text = texts.join("; ");
    if text.is_empty() {
        Attempt::Ended(How::Succeeded, text)
    } else if unknown {
        Attempt::Ended(How::Unknown, text)
    } else if begun {
        Attempt::Ended(How::Failed, text)
    } else {
        Attempt::NotBegun(text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(results: Vec<Result<exec::Ended, Stop>>) -> (Option<How>, String) {
        let named = results.into_iter().enumerate();
        match combine(named.map(|(n, result)| (format!("p{n}"), result)).collect()) {
            Attempt::Ended(how, text) => (Some(how), text),
            Attempt::NotBegun(text) => (None, text),
        }
    }

    fn ended(code: i32, output: &str) -> Result<exec::Ended, Stop> {
        Ok(exec::Ended {
            code,
            output: output.to_owned(),
        })
    }

    #[test]
    fn a_hook_succeeds_where_its_command_does_in_every_pod() {
        assert_eq!(
            of(vec![ended(0, "noise"), ended(0, "")]),
            (Some(How::Succeeded), String::new())
        );
        assert_eq!(
            of(vec![ended(0, ""), ended(7, "no such database")]),
            (
                Some(How::Failed),
                "pod p1: exit code 7: no such database".to_owned()
            )
        );
    }

    #[test]
    fn no_command_runs_in_a_pod_that_holds_keys() {
        let pod = |name: &str, labels: serde_json::Value, phase: &str| -> Pod {
            serde_json::from_value(
                serde_json::json!({ "metadata": { "name": name, "labels": labels },
                "status": { "phase": phase } }),
            )
            .unwrap()
        };
        let app = || serde_json::json!({ "app": "db" });
        let pods = vec![
            pod("b", app(), "Running"),
            pod(
                "ours",
                serde_json::json!({ names::LABEL_TYPE: "backup", "app": "db" }),
                "Running",
            ),
            pod("ended", app(), "Succeeded"),
            pod("a", app(), "Running"),
        ];
        let chosen: Vec<String> = eligible(pods).iter().map(|pod| pod.name_any()).collect();
        assert_eq!(chosen, ["a", "b"]);
    }

    #[test]
    fn it_has_begun_where_a_command_was_started_or_may_have_been() {
        let refused = || Err(Stop::Trouble(Trouble::NotStarted("forbidden".to_owned())));
        let cut = || Err(Stop::Trouble(Trouble::NoEnd("cut".to_owned())));
        assert_eq!(of(vec![refused()]), (None, "pod p0: forbidden".to_owned()));
        assert_eq!(of(vec![refused(), ended(0, "")]).0, Some(How::Failed));
        assert_eq!(of(vec![cut(), ended(0, "")]).0, Some(How::Unknown));
        let (how, text) = of(vec![Err(Stop::Limit(Duration::from_secs(5)))]);
        assert!(how == Some(How::Failed) && text.contains("within 5s"), "{text}");
    }
}
