//! Where an object is.

use std::fmt;
use std::sync::Arc;

/// Namespace and name. Cluster-scoped objects have an empty namespace.
#[derive(Clone, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Key {
    pub namespace: Arc<str>,
    pub name: Arc<str>,
}

impl Key {
    /// A key out of its parts.
    pub fn new(namespace: impl AsRef<str>, name: impl AsRef<str>) -> Key {
        Key {
            namespace: namespace.as_ref().into(),
            name: name.as_ref().into(),
        }
    }

    /// A name in the namespace of this key.
    #[must_use]
    pub fn sibling(&self, name: impl AsRef<str>) -> Key {
        Key {
            namespace: self.namespace.clone(),
            name: name.as_ref().into(),
        }
    }

    /// Its namespace as the key of an object.
    #[must_use]
    pub fn namespace_key(&self) -> Key {
        Key {
            namespace: Arc::default(),
            name: self.namespace.clone(),
        }
    }

    /// Sorts before every other key.
    pub(super) fn first() -> Key {
        Key {
            namespace: Arc::default(),
            name: Arc::default(),
        }
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.namespace.is_empty() {
            f.write_str(&self.name)
        } else {
            write!(f, "{}/{}", self.namespace, self.name)
        }
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}
