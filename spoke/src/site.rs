//! What an installation is called, and what it allows.

use crate::allow::Allowed;
use crate::images::AllowedImages;

/// What this installation is called, and what it allows.
#[derive(Clone, Debug)]
pub struct Site {
    /// Name of this cluster in the fleet.
    pub cluster: String,
    /// uid of namespace kube-system: the same for the life of a cluster, and never that of another one.
    pub cluster_uid: String,
    pub images: AllowedImages,
    /// Image of this program.
    pub image: String,
    pub limits: Limits,
    /// What the hub may make this cluster do.
    pub allowed: Allowed,
    /// The namespaces that are watched, sorted; all if empty.
    pub namespaces: Vec<String>,
}

/// Most backups that run at the same time; no limit unless given.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Limits {
    pub cluster: Option<usize>,
    /// Of those that have to run on a certain node.
    pub node: Option<usize>,
}

/// A limit as it is written in a spec or an option, where 0 stands for none.
#[must_use]
pub fn limit(given: impl TryInto<usize>) -> Option<usize> {
    given.try_into().ok().filter(|limit| *limit > 0)
}

#[cfg(test)]
impl Site {
    /// Cluster a, with the default images.
    pub fn of_tests() -> Site {
        Site {
            cluster: "a".to_owned(),
            cluster_uid: "uid-of-a".to_owned(),
            images: AllowedImages::default(),
            image: "spoke:1".to_owned(),
            limits: Limits::default(),
            allowed: Allowed::default(),
            namespaces: Vec::new(),
        }
    }
}
