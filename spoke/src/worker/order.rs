//! What the pod is to do: a file that the kubelet keeps up to date with the Pod's annotation. The operator replaces it
//! while the pod runs when policies change.

use std::path::PathBuf;

use proto::v1::RetentionRun;
use serde::de::DeserializeOwned;

/// File name in the lease folder.
pub const FILE: &str = "order";

/// Where the order stands.
#[derive(Clone, Debug)]
pub struct Order {
    path: PathBuf,
}

impl Order {
    /// The order in a lease folder.
    #[must_use]
    pub fn in_folder(folder: &std::path::Path) -> Order {
        Order {
            path: folder.join(FILE),
        }
    }

    /// The order as it is now.
    ///
    /// # Errors
    /// Why it cannot be used, in one sentence.
    pub fn read(&self) -> Result<RetentionRun, String> {
        self.parse()
    }

    /// The order of any sort of operation.
    ///
    /// # Errors
    /// As of [`Order::read`].
    pub fn parse<R: DeserializeOwned>(&self) -> Result<R, String> {
        let text =
            std::fs::read_to_string(&self.path).map_err(|e| format!("the order could not be read: {e}"))?;
        serde_json::from_str(&text).map_err(|e| format!("the order is not valid: {e}"))
    }
}
