//! `fleet bundle`: one file for support. What is not there or may not be read is said in it, and the rest is written.

mod archive;
mod redact;

use jiff::Timestamp;
use proto::v1::{ActivityRequest, Collection, ListRequest, LocksRequest};
use serde_json::{Value, json};

use self::archive::Archive;
use crate::arguments::{Bundle, HubArguments, KubeArguments};
use crate::check::{self, HUB, OPERATOR};
use crate::client::Client;
use crate::failure::Failure;
use crate::kubectl::{self, Kubectl};
use crate::objects::{items, name, namespace, text};
use crate::output::note;
use crate::{arriving, document, health, maintenance, version};

/// Lines of a log.
const LINES: &str = "--tail=3000";
/// Most pods whose logs are read.
const PODS: usize = 12;
/// Most Events.
const EVENTS: usize = 1000;

const README: &str = "\
What fleet saw when this was made. No Secret was read.

check.json       what `fleet check` found
version.json     of fleet, the hub and the clusters
hub/             what the hub shows to who made this
objects/         the four kinds, in all namespaces
system/          Deployments, pods, Leases and Events of operator and hub
logs/            the last lines of their logs
missing.txt      what could not be read, and why

Of objects only the texts of fields on a list are kept; others say \"(left out)\", such as commands, addresses of webhooks,
values of variables, annotations and labels. Users and passwords are removed from URLs, and what looks like a secret from
messages and logs. Names of clusters, namespaces, resources, hosts and people are in it: look before you send it.
";

/// Writes the file.
pub async fn bundle(hub: &HubArguments, kube: &KubeArguments, arguments: &Bundle) -> Result<u8, Failure> {
    arriving::free(&arguments.file)?;
    let now = Timestamp::now();
    let made = u64::try_from(now.as_second()).unwrap_or_default();
    let mut bundle = Gathered {
        archive: Archive::new(made),
        missing: Vec::new(),
    };
    bundle.archive.add("README.txt", README)?;
    let system = &arguments.system_namespace;
    // Neither a cluster nor a hub: there is nothing to write.
    let findings = check::look(hub, kube, system).await?;
    let findings = check::document(&findings, now);
    bundle
        .archive
        .add_json("check.json", &redact::document(&findings))?;
    bundle.hub(hub).await?;
    if kubectl::is_there(kube) {
        let kubectl = Kubectl::new(kube).within(hub.timeout);
        bundle.objects(&kubectl).await?;
        bundle.system(&kubectl, system).await?;
    } else {
        bundle.missing.push("cluster: there is no kubeconfig".to_owned());
    }
    let missing: String = bundle
        .missing
        .iter()
        .map(|line| redact::text(line) + "\n")
        .collect();
    bundle.archive.add("missing.txt", &missing)?;
    let files = bundle.archive.files();
    let bytes = bundle.archive.write(&arguments.file)?;
    note(&format!(
        "{}: {files} files, {bytes} bytes, {} could not be read; look before you send it: tar tzf {0}",
        arguments.file.display(),
        bundle.missing.len()
    ));
    Ok(0)
}

struct Gathered {
    archive: Archive,
    /// What could not be read.
    missing: Vec<String>,
}

impl Gathered {
    /// Adds a document, or why it is not there.
    fn put(&mut self, name: &str, found: Result<Value, Failure>) -> Result<(), Failure> {
        match found {
            Ok(value) => self.archive.add_json(name, &value),
            Err(failure) => {
                self.missing.push(format!("{name}: {failure}"));
                Ok(())
            }
        }
    }

    /// The hub's view, of who asks.
    async fn hub(&mut self, hub: &HubArguments) -> Result<(), Failure> {
        let mut client = match Client::connect(hub).await {
            Ok(client) => client,
            Err(failure) => {
                self.missing.push(format!("hub: {failure}"));
                return self.put("version.json", Ok(version::document(None)));
            }
        };
        let health = client.health().await;
        let versions = version::document(health.as_ref().ok());
        self.put("version.json", Ok(versions))?;
        self.put(
            "hub/health.json",
            health.map(|of| redact::document(&health::document(&of))),
        )?;
        let status = client.status().await;
        self.put(
            "hub/status.json",
            status.map(|of| redact::document(&document::status(&of))),
        )?;
        for (collection, kind, file) in [
            (Collection::Clusters, "ClusterList", "hub/clusters.json"),
            (
                Collection::Repositories,
                "RepositoryList",
                "hub/repositories.json",
            ),
            (Collection::Backups, "BackupList", "hub/backups.json"),
            (Collection::Policies, "PolicyList", "hub/policies.json"),
            (Collection::Restores, "RestoreList", "hub/restores.json"),
        ] {
            let request = ListRequest {
                collection: collection.into(),
                ..ListRequest::default()
            };
            // The worst of them: a page.
            let page = client.page(request).await;
            let page = page.map(|of| document::list(kind, of.revision, of.as_of.as_ref(), &of.rows));
            self.put(file, page.map(|of| redact::document(&of)))?;
        }
        let locks = client.locks(LocksRequest::default()).await;
        let locks = locks.map(|of| redact::document(&maintenance::document::locks(&of)));
        self.put("hub/locks.json", locks)?;
        let activity = client.activity(ActivityRequest::default()).await;
        let activity = activity.map(|of| redact::document(&crate::activity::list(&of)));
        self.put("hub/activity.json", activity)
    }

    /// The four kinds.
    async fn objects(&mut self, kubectl: &Kubectl) -> Result<(), Failure> {
        match check::objects(kubectl).await {
            Ok(list) => {
                for object in items(&list) {
                    let file = format!(
                        "objects/{}/{}/{}.json",
                        text(object, "/kind"),
                        namespace(object),
                        name(object)
                    );
                    self.archive.add_json(&file, &redact::object(object))?;
                }
                Ok(())
            }
            Err(why) => {
                self.missing.push(format!("objects: {why}"));
                Ok(())
            }
        }
    }

    /// What operator and hub are, and what they have said.
    async fn system(&mut self, kubectl: &Kubectl, system: &str) -> Result<(), Failure> {
        for kind in [
            "deployments",
            "pods",
            "leases",
            "persistentvolumeclaims",
            "networkpolicies",
        ] {
            let found = kubectl.json(&["get", kind, "-n", system, "-o", "json"]).await;
            if kind == "pods"
                && let Ok(pods) = &found
            {
                self.logs(kubectl, system, pods).await?;
            }
            self.put(
                &format!("system/{kind}.json"),
                found.map(|of| redact::object(&of)),
            )?;
        }
        let all = kubectl.json(&["get", "events", "-A", "-o", "json"]).await;
        let ours = all.map(|all| {
            let of = items(&all).iter().filter(|event| is_ours(event, system));
            let events: Vec<Value> = of.map(redact::object).collect();
            let first = events.len().saturating_sub(EVENTS);
            json!({ "items": events.get(first..).unwrap_or_default() })
        });
        self.put("system/events.json", ours)
    }

    async fn logs(&mut self, kubectl: &Kubectl, system: &str, pods: &Value) -> Result<(), Failure> {
        let ours = items(pods).iter().filter(|pod| {
            let labels = pod
                .pointer("/metadata/labels/app.kubernetes.io~1name")
                .and_then(Value::as_str);
            labels.is_some_and(|label| label == OPERATOR || label == HUB)
        });
        for pod in ours.take(PODS) {
            let restarts = pod
                .pointer("/status/containerStatuses/0/restartCount")
                .and_then(Value::as_u64);
            let before = restarts.is_some_and(|count| count > 0).then_some("--previous");
            // Its present log, and that of before its last restart.
            for previous in [Some(None), before.map(Some)].into_iter().flatten() {
                let mut arguments = vec!["logs", name(pod), "-n", system, "--all-containers", LINES];
                arguments.extend(previous);
                let file = format!("logs/{}{}.log", name(pod), previous.unwrap_or_default());
                match kubectl.run(&arguments).await {
                    Ok(log) => self.archive.add(&file, &redact::text(&log))?,
                    Err(failure) => self.missing.push(format!("{file}: {failure}")),
                }
            }
        }
        Ok(())
    }
}

/// Of the system namespace, or about one of the four kinds, or what they make.
fn is_ours(event: &Value, system: &str) -> bool {
    let about = text(event, "/involvedObject/name");
    let made = [
        "resticbackup-",
        "resticrestore-",
        "globalretention-",
        "integritycheck-",
    ];
    namespace(event) == system
        || text(event, "/involvedObject/apiVersion").starts_with(check::GROUP)
        || made.iter().any(|prefix| about.starts_with(prefix))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_of_others_are_not_taken() {
        let event = |namespace: &str, group: &str, name: &str| {
            json!({
                "metadata": { "namespace": namespace },
                "involvedObject": { "apiVersion": format!("{group}/v1"), "name": name },
            })
        };
        assert!(is_ours(&event("sys", "apps", "x"), "sys"));
        assert!(is_ours(&event("shop", "backup.resticbackup.io", "orders"), "sys"));
        assert!(is_ours(&event("shop", "batch", "resticbackup-orders-1"), "sys"));
        assert!(!is_ours(&event("shop", "apps", "orders"), "sys"));
    }
}
