//! Which objects are watched.

use crds::names;
use k8s_openapi::NamespaceResourceScope;
use kube::runtime::watcher;
use kube::{Api, Client, Resource};

/// What one watch covers of a type.
#[derive(Clone, Debug)]
pub(super) struct Part {
    /// Position among the watches of the type.
    pub number: usize,
    /// One namespace, or all of the cluster.
    pub namespace: Option<String>,
}

impl Part {
    /// One for each namespace, or one for all where none is given.
    pub fn all(namespaces: &[String]) -> Vec<Part> {
        if namespaces.is_empty() {
            return vec![Part::whole()];
        }
        let part = |(number, namespace): (usize, &String)| Part {
            number,
            namespace: Some(namespace.clone()),
        };
        namespaces.iter().enumerate().map(part).collect()
    }

    /// The one of a type that is in no namespace.
    pub fn whole() -> Part {
        Part {
            number: 0,
            namespace: None,
        }
    }

    /// Where it lists and watches.
    pub fn api<K>(&self, client: Client) -> Api<K>
    where
        K: Resource<DynamicType = (), Scope = NamespaceResourceScope>,
    {
        match &self.namespace {
            Some(namespace) => Api::namespaced(client, namespace),
            None => Api::all(client),
        }
    }

    /// Name of the watch of a type.
    pub fn name(&self, kind: &str) -> String {
        match &self.namespace {
            Some(namespace) => format!("{kind} in {namespace}"),
            None => kind.to_owned(),
        }
    }
}

/// Objects that we made carry it.
pub(super) fn ours() -> watcher::Config {
    everything().labels(&format!("{}={}", names::LABEL_APP, names::APP))
}

/// Pods that hold volumes: with a node, not ended, and not of a backup.
pub(super) fn of_applications() -> watcher::Config {
    let backups = format!("{}!=backup", names::LABEL_TYPE);
    everything()
        .fields("spec.nodeName!=,status.phase!=Succeeded,status.phase!=Failed")
        .labels(&backups)
}

/// Name of the watch of pods of applications, beside that of our own.
pub(super) const APP_PODS: &str = "Pod/applications";

/// A silently cut connection hides changes until the watch ends by itself, hence shorter than the server's default of
/// five minutes. Pages are small so that a list of thousands never lies in memory whole.
pub(super) fn everything() -> watcher::Config {
    watcher::Config::default().timeout(120).page_size(100)
}
