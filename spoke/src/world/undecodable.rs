//! An object that this version cannot decode: it exists, and what is read of it is its JSON.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

/// An object of one of our kinds that this version cannot decode.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Undecodable {
    pub meta: ObjectMeta,
    /// The error of serde.
    pub error: String,
    /// The object as JSON, without managed fields.
    pub raw: serde_json::Value,
}

impl Undecodable {
    /// A text of the object, by its JSON pointer.
    #[must_use]
    pub fn text(&self, pointer: &str) -> Option<&str> {
        self.raw.pointer(pointer)?.as_str()
    }

    pub(super) fn version(&self) -> u64 {
        let version = self.meta.resource_version.as_deref();
        version.and_then(|v| v.parse().ok()).unwrap_or_default()
    }
}
