//! What is kept of every object.

use crds::names;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::core::PartialObjectMeta;

use super::Key;

/// Identity of an object.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Meta {
    pub uid: Box<str>,
    pub version: u64,
    pub generation: i64,
    pub deleting: bool,
    /// Hash of the manifest that was last applied (`names::ANNOTATION_APPLIED`).
    pub applied: Option<Box<str>>,
    /// uid of the restore that made it (`names::ANNOTATION_RESTORE_UID`).
    pub restore: Option<Box<str>>,
    /// uid of the controlling owner.
    pub owner: Option<Box<str>>,
    /// Kind and name of the controlling owner.
    pub owner_name: Option<(Box<str>, Box<str>)>,
}

impl Meta {
    /// The part of an object's metadata that is kept.
    #[must_use]
    pub fn of(meta: &ObjectMeta) -> Meta {
        let owners = meta.owner_references.as_deref().unwrap_or_default();
        let owner = owners.iter().find(|o| o.controller == Some(true));
        Meta {
            uid: meta.uid.as_deref().unwrap_or_default().into(),
            version: meta
                .resource_version
                .as_deref()
                .and_then(|v| v.parse().ok())
                .unwrap_or_default(),
            generation: meta.generation.unwrap_or_default(),
            deleting: meta.deletion_timestamp.is_some(),
            applied: annotation(meta, names::ANNOTATION_APPLIED).map(Into::into),
            restore: annotation(meta, names::ANNOTATION_RESTORE_UID).map(Into::into),
            owner: owner.map(|o| o.uid.as_str().into()),
            owner_name: owner.map(|o| (o.kind.as_str().into(), o.name.as_str().into())),
        }
    }

    /// Whether it is controlled by the resource with this uid, or by none.
    #[must_use]
    pub fn is_for(&self, owner: Option<&str>) -> bool {
        self.owner.is_none() || self.owner.as_deref() == owner
    }
}

/// An object of which only identity and what was applied count.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct MetaView {
    pub meta: Meta,
}

impl MetaView {
    /// Of any object's metadata, as a metadata-only watch delivers it.
    #[must_use]
    pub fn of<K>(object: &PartialObjectMeta<K>) -> MetaView {
        MetaView {
            meta: Meta::of(&object.metadata),
        }
    }
}

/// The resource that an object was made for, by its label.
pub(super) fn resource_of(meta: &ObjectMeta) -> Option<Key> {
    let labels = meta.labels.as_ref()?;
    let name = [names::LABEL_BACKUP, names::LABEL_RESTORE, names::LABEL_RETENTION]
        .iter()
        .find_map(|label| labels.get(*label))?;
    Some(Key::new(meta.namespace.as_deref()?, name))
}

pub(super) fn annotation<'a>(meta: &'a ObjectMeta, name: &str) -> Option<&'a str> {
    meta.annotations.as_ref()?.get(name).map(String::as_str)
}
