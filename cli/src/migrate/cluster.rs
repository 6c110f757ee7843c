//! The cluster that is migrated, through the person's own kubectl: it has the person's rights.

use std::collections::BTreeMap;

use base64::Engine as _;
use serde_json::Value;

use super::plan::Patch;
use super::present::{keep, refusal};
use super::secret::Secrets;
use crate::arguments::KubeArguments;
use crate::check::kube::GROUP;
use crate::failure::Failure;
use crate::kubectl::{self, Kubectl};
use crate::objects::{at, text};

/// Field manager of what is written.
const MANAGER: &str = "--field-manager=fleet-migrate";

/// A cluster, or one namespace of it.
pub struct Cluster {
    kubectl: Kubectl,
    namespace: Option<String>,
}

impl Cluster {
    /// As it was chosen.
    #[must_use]
    pub fn new(kube: &KubeArguments, namespace: Option<&str>) -> Cluster {
        Cluster {
            kubectl: Kubectl::new(kube),
            namespace: namespace.map(str::to_owned),
        }
    }

    /// Objects of a resource; `None` where the cluster does not know it.
    pub async fn list(&self, resource: &str) -> Result<Option<Vec<Value>>, Failure> {
        match &self.namespace {
            Some(namespace) => self.list_in(resource, Some(namespace)).await,
            None => self.list_in(resource, None).await,
        }
    }

    /// The same of one namespace, or of all.
    pub async fn list_in(
        &self,
        resource: &str,
        namespace: Option<&str>,
    ) -> Result<Option<Vec<Value>>, Failure> {
        let place = match namespace {
            Some(namespace) => vec!["-n", namespace],
            None => vec!["-A"],
        };
        let listed = self
            .kubectl
            .run(&[&["get", resource, "-o", "json"][..], &place[..]].concat())
            .await;
        let Some(listed) = known(listed)? else {
            return Ok(None);
        };
        let listed = kubectl::parse(&listed)?;
        let mut items = listed
            .get("items")
            .and_then(Value::as_array)
            .cloned()
            .unwrap_or_default();
        // What is left out of a list, a list of kinds has.
        for item in &mut items {
            if let Some(metadata) = item.get_mut("metadata").and_then(Value::as_object_mut) {
                metadata.remove("managedFields");
            }
        }
        Ok(Some(items))
    }

    /// Objects of what the migration is about.
    pub async fn needed(&self, resource: &str) -> Result<Vec<Value>, Failure> {
        let missing = || {
            Failure::Usage(format!(
                "the cluster has no {resource}: is this the right context of kubectl?"
            ))
        };
        self.list(resource).await?.ok_or_else(missing)
    }

    /// Objects that may not be there.
    pub async fn optional(&self, resource: &str) -> Result<Vec<Value>, Failure> {
        Ok(self.list(resource).await?.unwrap_or_default())
    }

    /// One object; `None` where it is not there, or the cluster does not know its kind.
    pub async fn get(&self, resource: &str, namespace: &str, name: &str) -> Result<Option<Value>, Failure> {
        let get = [
            "get",
            resource,
            "-n",
            namespace,
            name,
            "--ignore-not-found",
            "-o",
            "json",
        ];
        let object = known(self.kubectl.run(&get).await)?.unwrap_or_default();
        match object.trim() {
            "" => Ok(None),
            object => kubectl::parse(object).map(Some),
        }
    }

    /// Secrets by namespace and name; those that are not there are left out.
    pub async fn secrets(&self, wanted: Vec<(String, String)>) -> Result<Secrets, Failure> {
        self.values("secret", wanted, values).await
    }

    /// ConfigMaps, alike.
    pub async fn config_maps(&self, wanted: Vec<(String, String)>) -> Result<Secrets, Failure> {
        self.values("configmap", wanted, texts).await
    }

    async fn values(
        &self,
        resource: &str,
        wanted: Vec<(String, String)>,
        read: impl Fn(&Value) -> BTreeMap<String, String>,
    ) -> Result<Secrets, Failure> {
        let mut found = Secrets::new();
        for (namespace, name) in wanted {
            if found.contains_key(&(namespace.clone(), name.clone())) {
                continue;
            }
            if let Some(object) = self.get(resource, &namespace, &name).await? {
                found.insert((namespace, name), read(&object));
            }
        }
        Ok(found)
    }

    /// The same; those that nobody lets this person read are left out as well.
    pub async fn permitted_secrets(&self, wanted: Vec<(String, String)>) -> Result<Secrets, Failure> {
        let mut found = Secrets::new();
        for one in wanted {
            found.extend(permitted(self.secrets(vec![one]).await)?.unwrap_or_default());
        }
        Ok(found)
    }

    /// An object of ours as it is to be written, and what of it stays as it is.
    ///
    /// # Errors
    /// When another one is there under the same name: it is left alone.
    pub async fn prepared(&self, object: &Value) -> Result<(Value, Vec<String>), Failure> {
        let (namespace, name) = at(object);
        let mut object = object.clone();
        let present = self.get(&resource(&object), namespace, name).await?;
        let kept = match &present {
            Some(present) => match refusal(present, &object) {
                Some(why) => return Err(Failure::Usage(format!("nothing was written: {why}"))),
                None => keep(present, &mut object),
            },
            None => Vec::new(),
        };
        Ok((object, kept))
    }

    /// Writes an object that was prepared.
    pub async fn apply(&self, object: &Value) -> Result<(), Failure> {
        let apply = ["apply", "--server-side", "--force-conflicts", MANAGER, "-f", "-"];
        self.kubectl.give(&apply, &object.to_string()).await.map(drop)
    }

    /// Changes an object.
    pub async fn patch(&self, patch: &Patch) -> Result<(), Failure> {
        let change = patch.change.to_string();
        let arguments = [
            "patch",
            &patch.resource,
            "-n",
            &patch.namespace,
            &patch.name,
            "--type=merge",
            MANAGER,
            "-p",
            &change,
        ];
        self.kubectl.run(&arguments).await.map(drop)
    }
}

/// What kubectl answered; `None` where the cluster does not know the kind of resource.
fn known(answer: Result<String, Failure>) -> Result<Option<String>, Failure> {
    match answer {
        Err(Failure::Kubectl(error)) if error.contains("the server doesn't have a resource type") => Ok(None),
        answer => answer.map(Some),
    }
}

/// What kubectl answered; `None` where the person has no right to it.
pub fn permitted<T>(answer: Result<T, Failure>) -> Result<Option<T>, Failure> {
    match answer {
        Err(Failure::Kubectl(error)) if error.contains("(Forbidden)") => Ok(None),
        answer => answer.map(Some),
    }
}

/// As kubectl names it.
fn resource(object: &Value) -> String {
    match text(object, "/kind") {
        "Secret" => "secret".to_owned(),
        kind => format!("{}.{GROUP}", kind.to_lowercase()),
    }
}

/// Values of a Secret that are texts.
fn values(secret: &Value) -> BTreeMap<String, String> {
    let data = secret
        .get("data")
        .and_then(Value::as_object)
        .cloned()
        .unwrap_or_default();
    let decoded = data.into_iter().filter_map(|(key, value)| {
        let bytes = base64::engine::general_purpose::STANDARD
            .decode(value.as_str()?)
            .ok()?;
        Some((key, String::from_utf8(bytes).ok()?))
    });
    decoded.collect()
}

/// Values of a ConfigMap.
fn texts(config_map: &Value) -> BTreeMap<String, String> {
    let data = config_map.get("data").and_then(Value::as_object);
    let texts = data
        .into_iter()
        .flatten()
        .filter_map(|(key, value)| Some((key.clone(), value.as_str()?.to_owned())));
    texts.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kind_that_was_removed_is_nothing_and_another_failure_is_one() {
        let gone = "error: the server doesn't have a resource type \"schedules\"".to_owned();
        assert!(matches!(known(Err(Failure::Kubectl(gone))), Ok(None)));
        let other = "Unable to connect to the server".to_owned();
        assert!(known(Err(Failure::Kubectl(other))).is_err());
        assert!(matches!(known(Ok("{}".to_owned())), Ok(Some(_))));
    }
}
