//! What a migration comes to, whatever the tool: resources of ours, Secrets, changes of what is there, and what a person
//! has to know. Pure.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use super::secret::NewSecret;
use crate::arguments::Tool;
use crate::check::kube::API;
use crate::objects::text;

/// Label of what a migration has made: the tool.
pub const FROM: &str = "fleet.resticbackup.io/migrated-from";
/// Annotation: whose place it takes, each as `RESOURCE/NAMESPACE/NAME`, with commas between them.
pub const SOURCE: &str = "fleet.resticbackup.io/migrated-source";
/// Annotation, written alike: whose place it takes in part only. `finish` does not stop these.
pub const IN_PART: &str = "fleet.resticbackup.io/migrated-in-part";
/// Name of the CronJob of a backup: `resticbackup-` and this, at most 52 characters.
const LONGEST: usize = 39;

/// A fact about something of the other tool that a person has to know.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Note {
    pub about: String,
    pub text: String,
}

/// A change of an object that is there, as a merge patch.
#[derive(Clone, Debug, PartialEq)]
pub struct Patch {
    pub resource: String,
    pub namespace: String,
    pub name: String,
    pub change: Value,
    /// What it does, for people.
    pub what: String,
}

/// All of it.
#[derive(Clone, Debug)]
pub struct Plan {
    pub tool: Tool,
    /// Our backups run from the beginning.
    pub running: bool,
    pub objects: Vec<Value>,
    pub secrets: Vec<NewSecret>,
    pub patches: Vec<Patch>,
    pub notes: Vec<Note>,
    /// Sources of which something was not carried over.
    pub in_part: BTreeSet<String>,
}

/// Where a resource of ours goes, and whose place it takes.
#[derive(Clone, Debug, Default)]
pub struct Place {
    pub namespace: String,
    pub name: String,
    pub source: String,
}

impl Plan {
    /// Nothing yet.
    #[must_use]
    pub fn new(tool: Tool, running: bool) -> Plan {
        Plan {
            tool,
            running,
            objects: Vec::new(),
            secrets: Vec::new(),
            patches: Vec::new(),
            notes: Vec::new(),
            in_part: BTreeSet::new(),
        }
    }

    /// Adds a note that something of a source is not carried over, so that `finish` must not stop it.
    pub fn leave(&mut self, source: &str, about: &str, text: impl Into<String>) {
        self.in_part.insert(source.to_owned());
        self.note(about, text);
    }

    /// Marks what takes the place of a source in part only. The last step of making a plan.
    #[must_use]
    pub fn settled(mut self) -> Plan {
        for object in &mut self.objects {
            let annotations = &mut object["metadata"]["annotations"];
            let sources = text(annotations, &format!("/{}", SOURCE.replace('/', "~1"))).to_owned();
            let sources = sources.split(',').filter(|source| !source.is_empty());
            let (in_part, whole): (Vec<&str>, Vec<&str>) =
                sources.partition(|source| self.in_part.contains(*source));
            *annotations = json!({});
            for (annotation, sources) in [(SOURCE, whole), (IN_PART, in_part)] {
                if !sources.is_empty() {
                    annotations[annotation] = json!(sources.join(","));
                }
            }
        }
        self
    }

    /// Adds a note.
    pub fn note(&mut self, about: &str, text: impl Into<String>) {
        let note = Note {
            about: about.to_owned(),
            text: text.into(),
        };
        if !self.notes.contains(&note) {
            self.notes.push(note);
        }
    }

    /// A name of a kind that no object of the plan has yet.
    #[must_use]
    pub fn free(&self, kind: &str, namespace: &str, wanted: &str) -> String {
        let wanted = dns_name(wanted);
        let taken = |name: &str| {
            let mut objects = self.objects.iter();
            objects.any(|object| {
                object["kind"] == kind
                    && object["metadata"]["namespace"] == namespace
                    && object["metadata"]["name"] == name
            })
        };
        let mut names = (1..).map(|number| match number {
            1 => wanted.clone(),
            number => format!("{}-{number}", cut(&wanted, LONGEST - 4)),
        });
        names.find(|name| !taken(name)).unwrap_or(wanted)
    }

    /// Adds a resource of ours.
    pub fn add(&mut self, kind: &str, place: &Place, spec: Value) {
        let mut annotations = json!({});
        if !place.source.is_empty() {
            annotations[SOURCE] = json!(place.source);
        }
        self.objects.push(json!({
            "apiVersion": API,
            "kind": kind,
            "metadata": {
                "name": place.name,
                "namespace": place.namespace,
                "labels": { FROM: self.tool.as_str() },
                "annotations": annotations,
            },
            "spec": spec,
        }));
    }

    /// Adds a repository that has to be there already. Its name is the answer.
    pub fn repository(&mut self, place: &Place, url: &str, secret: &Value, more: Value) -> String {
        let name = self.free("ResticRepository", &place.namespace, &place.name);
        let place = Place {
            name: name.clone(),
            ..place.clone()
        };
        // A mistyped URL is no new repository: there is a history to be found.
        let spec = json!({ "repositoryURL": url, "credentialsSecretRef": secret, "initialize": "Never" });
        self.add("ResticRepository", &place, merged(spec, more));
        name
    }

    /// Adds a backup, suspended unless all of the plan runs. Its name is the answer.
    pub fn backup(&mut self, place: &Place, repository: Value, spec: Value) -> String {
        let name = self.free("ResticBackup", &place.namespace, &place.name);
        let place = Place {
            name: name.clone(),
            ..place.clone()
        };
        let own = json!({ "repositoryRef": repository, "suspend": !self.running });
        self.add("ResticBackup", &place, merged(own, spec));
        name
    }

    /// Adds a policy, which is suspended until the migration is finished: two tools that remove are one too many.
    pub fn policy(
        &mut self,
        place: &Place,
        repository: Value,
        schedule: &str,
        rules: Vec<Value>,
        prune: bool,
    ) {
        let name = self.free("GlobalRetentionPolicy", &place.namespace, &place.name);
        let place = Place {
            name,
            ..place.clone()
        };
        let spec = json!({
            "repositoryRef": repository, "schedule": schedule, "policies": rules, "prune": prune, "suspend": true,
        });
        self.add("GlobalRetentionPolicy", &place, spec);
    }
}

/// The fields of both; those of the second count.
#[must_use]
pub fn merged(mut first: Value, second: Value) -> Value {
    if let (Some(first), Value::Object(second)) = (first.as_object_mut(), second) {
        let given = second.into_iter().filter(|(_, value)| !value.is_null());
        first.extend(given);
    }
    first
}

/// A name that Kubernetes takes, and from which the names of what is generated can be made.
#[must_use]
pub fn dns_name(text: &str) -> String {
    let proper = |c: char| match c {
        'a'..='z' | '0'..='9' | '-' => c,
        'A'..='Z' => c.to_ascii_lowercase(),
        _ => '-',
    };
    let name: String = text.chars().map(proper).collect();
    match cut(name.trim_matches('-'), LONGEST) {
        "" => "unnamed".to_owned(),
        name => name.to_owned(),
    }
}

fn cut(name: &str, longest: usize) -> &str {
    name.get(..longest).unwrap_or(name).trim_end_matches('-')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_such_that_kubernetes_takes_them_and_none_is_given_twice() {
        assert_eq!(dns_name("Data_of.shop-"), "data-of-shop");
        assert_eq!(dns_name("…"), "unnamed");
        assert_eq!(dns_name(&"a".repeat(80)).len(), LONGEST);
        let mut plan = Plan::new(Tool::K8up, false);
        let place = Place {
            namespace: "shop".to_owned(),
            name: "x".repeat(60),
            source: String::new(),
        };
        let names: Vec<String> = (0..3)
            .map(|_| plan.backup(&place, json!({ "name": "r" }), json!({})))
            .collect();
        assert_eq!(names[0], "x".repeat(LONGEST));
        assert!(names[1].ends_with("-2") && names[2].ends_with("-3"), "{names:?}");
        assert!(names.iter().all(|name| name.len() <= LONGEST));
    }

    #[test]
    fn what_is_made_is_suspended_and_can_be_told_from_what_a_person_made() {
        let mut plan = Plan::new(Tool::Volsync, false);
        let place = Place {
            namespace: "shop".to_owned(),
            name: "data".to_owned(),
            source: "replicationsources.volsync.backube/shop/data".to_owned(),
        };
        plan.backup(&place, json!({ "name": "r" }), json!({ "timezone": null }));
        plan.policy(&place, json!({ "name": "r" }), "@daily", vec![], true);
        for object in &plan.objects {
            assert_eq!(object["metadata"]["labels"][FROM], "volsync");
            assert_eq!(object["metadata"]["annotations"][SOURCE], place.source);
            assert_eq!(object["spec"]["suspend"], true);
            assert!(object["spec"].get("timezone").is_none());
        }
        plan.running = true;
        plan.backup(&place, json!({ "name": "r" }), json!({}));
        assert_eq!(plan.objects[2]["spec"]["suspend"], false);
    }
}
