//! `fleet clusters rebuild`: the resources of a cluster that was lost, from what the hub holds of it.

mod restores;

use std::collections::BTreeSet;

use jiff::Timestamp;
use proto::v1::manifest_part::Body;
use proto::v1::{BackupHistory, Manifest, ManifestsHead, ManifestsRequest};
use serde_json::{Value, json};

use self::restores::{Lost, restores};
use crate::arguments::Rebuild;
use crate::check::kube::API;
use crate::client::Client;
use crate::failure::{Failure, code};
use crate::objects::at;
use crate::output::{note, print};
use crate::run::yaml;
use crate::text::{counted, rfc3339};

/// What spokes write in the place of what could be a secret.
const TAKEN_OUT: &str = "(not sent to the hub)";

/// How a backup, and a policy, runs again. The hub refuses to resume what kubectl has suspended.
const RESUME: &str = "kubectl patch rb NAME -n NAMESPACE --type=merge -p '{\"spec\":{\"suspend\":false}}', and the same for policies \
     with grp in the place of rb";

/// Prints them.
pub async fn rebuild(client: &mut Client, rebuild: &Rebuild) -> Result<u8, Failure> {
    let request = ManifestsRequest {
        cluster: rebuild.cluster.clone(),
        reported_uid: rebuild.uid.clone().unwrap_or_default(),
    };
    let mut parts = client.manifests(request).await?;
    let (mut head, mut manifests) = (ManifestsHead::default(), Vec::new());
    while let Some(part) = client.next(&mut parts).await? {
        match part.body {
            Some(Body::Head(found)) => head = found,
            Some(Body::Manifest(manifest)) => manifests.push(manifest),
            None => {}
        }
    }
    if let Some(uid) = rebuild.uid.as_ref().filter(|uid| **uid != head.reported_uid) {
        return Err(Failure::Usage(format!(
            "this hub cannot say what the cluster with uid {uid} had: its version keeps only what was reported last"
        )));
    }
    let held = manifests.len();
    if let Some(namespace) = &rebuild.namespace {
        manifests.retain(|manifest| manifest.namespace == *namespace);
    }
    let made = made(rebuild, &head, &manifests);
    if !made.objects.is_empty() {
        print(&text(&made.objects));
    }
    note(&heading(rebuild, &head, manifests.len()));
    let (before, fewer) = before(rebuild, &head, held);
    let notes = made.notes.iter().chain(&before);
    notes.for_each(|text| note(&shown(text)));
    let whole = made.findings == 0 && head.complete && !fewer && !manifests.is_empty();
    Ok(if whole { 0 } else { code::FINDING })
}

/// What to keep before another cluster reports under a name that is known; `None` where what the hub has was
/// reported by the cluster with this uid. Where the hub does not say what it has, there may be something.
pub async fn to_keep(client: &mut Client, cluster: &str, uid: Option<&str>) -> Option<String> {
    let request = ManifestsRequest {
        cluster: cluster.to_owned(),
        ..ManifestsRequest::default()
    };
    // Who may accept a cluster may lack the right to see what is in it. Then the advice is given in any case.
    let head = match client.manifests(request).await {
        Ok(mut parts) => client.next(&mut parts).await.ok().flatten(),
        Err(_) => None,
    };
    let reported = head.and_then(|part| match part.body {
        Some(Body::Head(head)) => Some(head.reported_uid),
        _ => None,
    });
    keep(cluster, uid, reported.as_deref())
}

fn keep(cluster: &str, uid: Option<&str>, reported: Option<&str>) -> Option<String> {
    if reported.is_some() && reported == uid {
        return None;
    }
    let cluster = shown(cluster);
    let of = match reported.filter(|reported| !reported.is_empty()) {
        Some(reported) => format!(" --uid {}", word(reported)),
        None => String::new(),
    };
    Some(format!(
        "before another cluster reports as {cluster}, keep what the one that may be lost had: fleet clusters rebuild {cluster}{of} \
         --restores > {cluster}.yaml"
    ))
}

fn heading(rebuild: &Rebuild, head: &ManifestsHead, count: usize) -> String {
    let as_of =
        rfc3339(head.as_of.as_ref()).unwrap_or_else(|| format!("unknown, now is {}", Timestamp::now()));
    let mut text = shown(&rebuild.cluster);
    if !head.reported_uid.is_empty() {
        text += &format!(" (uid {})", word(&head.reported_uid));
    }
    text += &format!(
        " had {} as of {as_of}",
        counted(count as u64, "resource", "resources")
    );
    if let Some(namespace) = &rebuild.namespace {
        text += &format!(" in namespace {}", shown(namespace));
    }
    if !head.complete {
        text += "; the hub does not hold or show all of it";
    }
    text
}

/// What is said of the clusters that had the name before, and whether one of them had more than what is printed: then it is not
/// clear which of them is meant. `held` counts the resources of all namespaces.
fn before(rebuild: &Rebuild, head: &ManifestsHead, held: usize) -> (Vec<String>, bool) {
    let cluster = &rebuild.cluster;
    let fewer = rebuild.uid.is_none() && head.replaced.iter().any(|one| one.resources > held as u64);
    let mut notes = Vec::new();
    for one in head.replaced.iter().filter(|_| fewer || held == 0) {
        let heard = rfc3339(one.last_heard.as_ref()).unwrap_or_else(|| "a time that is not known".to_owned());
        let kept = rfc3339(one.kept_until.as_ref()).unwrap_or_default();
        notes.push(format!(
            "until {heard} {cluster} was the cluster with uid {uid}, which had {resources}: fleet clusters rebuild {cluster} --uid \
             {uid} prints them (kept until {kept})",
            uid = word(&one.cluster_uid),
            resources = counted(one.resources, "resource", "resources"),
        ));
    }
    if held == 0 && head.replaced.is_empty() {
        notes.push(format!(
            "nothing can be made again of this. If {cluster} had resources, a new cluster under its name has reported that it has \
             none, and the hub keeps no longer what was before: look for it in a backup of the hub or where you keep manifests"
        ));
    }
    (notes, fewer)
}

/// Without control characters.
fn shown(text: &str) -> String {
    text.chars().filter(|c| !c.is_control()).collect()
}

/// A uid as it may stand in a command: a spoke says what it is.
fn word(uid: &str) -> String {
    let plain = |c: &char| c.is_ascii_alphanumeric() || ['-', '.', '_'].contains(c);
    uid.chars().filter(plain).collect()
}

/// What is printed.
#[derive(Debug, Default)]
struct Made {
    objects: Vec<Value>,
    notes: Vec<String>,
    /// What is missing: resources that could not be made, values that were taken out, claims without a restore.
    findings: usize,
}

/// A resource as it is to be made again.
struct Taken {
    object: Value,
    /// It was suspended in its cluster.
    suspended: bool,
    /// What is known of its snapshots.
    history: Option<BackupHistory>,
}

fn made(rebuild: &Rebuild, head: &ManifestsHead, manifests: &[Manifest]) -> Made {
    let mut made = Made::default();
    let taken: Vec<Taken> = manifests
        .iter()
        .filter_map(|manifest| taken(rebuild, manifest, &mut made))
        .collect();
    let namespaces: BTreeSet<&str> = manifests.iter().map(|one| one.namespace.as_str()).collect();
    let namespace = |name| json!({ "apiVersion": "v1", "kind": "Namespace", "metadata": { "name": name } });
    made.objects.extend(namespaces.into_iter().map(namespace));
    made.objects
        .extend(taken.iter().map(|taken| taken.object.clone()));
    if rebuild.restores {
        let lost = Lost {
            cluster: &rebuild.cluster,
            uid: &head.reported_uid,
        };
        let restores = restores(&lost, &taken, &mut made);
        made.objects.extend(restores);
    }
    let secrets: BTreeSet<String> = taken.iter().flat_map(|taken| secrets(&taken.object)).collect();
    if !secrets.is_empty() {
        let secrets: Vec<String> = secrets.into_iter().collect();
        made.notes.insert(
            0,
            format!(
                "the hub has no Secret; apply these as well, after the namespaces that are printed here (fleet kit, or where you keep \
                 them): {}",
                secrets.join(", ")
            ),
        );
    }
    if rebuild.restores || rebuild.suspended {
        made.notes.extend(resuming(rebuild, &taken));
    }
    made
}

/// How what is suspended in what is printed runs again.
fn resuming(rebuild: &Rebuild, taken: &[Taken]) -> Vec<String> {
    let until = if rebuild.restores {
        " until the restores are over"
    } else {
        ""
    };
    let mut notes = vec![format!(
        "backups and policies are suspended{until}; then, for each: {RESUME}"
    )];
    let stay: Vec<String> = taken
        .iter()
        .filter(|taken| taken.suspended)
        .map(Taken::place)
        .collect();
    if !stay.is_empty() {
        notes.push(format!(
            "these were suspended before, and may be meant to stay so: {}",
            stay.join(", ")
        ));
    }
    notes
}

impl Taken {
    /// `kind namespace/name`.
    fn place(&self) -> String {
        let (namespace, name) = at(&self.object);
        format!(
            "{} {namespace}/{name}",
            crate::objects::text(&self.object, "/kind")
        )
    }
}

/// Secrets that a resource refers to, as namespace and name.
fn secrets(object: &Value) -> Vec<String> {
    let (namespace, _) = at(object);
    let names = secrets_of(&object["spec"]).into_iter();
    names.map(|name| format!("{namespace}/{name}")).collect()
}

/// A resource as it is to be made again; `None`, and noted, where it cannot be.
fn taken(rebuild: &Rebuild, manifest: &Manifest, made: &mut Made) -> Option<Taken> {
    let about = format!("{} {}/{}", manifest.kind, manifest.namespace, manifest.name);
    let Some(mut object) = object(manifest) else {
        made.findings += 1;
        made.notes.push(format!(
            "{about} cannot be made: its spoke was of a version that did not send it, or it is larger than 32 KiB"
        ));
        return None;
    };
    if object.to_string().contains(TAKEN_OUT) {
        made.findings += 1;
        made.notes.push(format!(
            "{about}: write the values of the variables, and the users and passwords of the addresses, that are {TAKEN_OUT:?}"
        ));
    }
    if !manifest.owner.is_empty() {
        made.notes.push(format!(
            "{about} was made by {}: leave it out where that makes it again",
            manifest.owner
        ));
    }
    if object.pointer("/spec/allowedNamespaces/selector").is_some() {
        made.notes.push(format!(
            "{about} is open to namespaces with labels, which have to be set on them again"
        ));
    }
    let spec = &mut object["spec"];
    let suspended = spec["suspend"] == true;
    match manifest.kind.as_str() {
        // What was there is to be found, and not made anew.
        "ResticRepository" => spec["initialize"] = json!("Never"),
        _ if rebuild.suspended || rebuild.restores => spec["suspend"] = json!(true),
        _ => {}
    }
    Some(Taken {
        object,
        suspended,
        history: manifest.history,
    })
}

fn object(manifest: &Manifest) -> Option<Value> {
    let object: Value = serde_json::from_str(&manifest.manifest).ok()?;
    let kind = object.get("kind").and_then(Value::as_str);
    // Only what it says that it is: a spoke wrote it.
    let is = kind == Some(manifest.kind.as_str())
        && object["apiVersion"] == API
        && object["metadata"]["name"] == manifest.name.as_str()
        && object["metadata"]["namespace"] == manifest.namespace.as_str()
        && object["spec"].is_object();
    is.then_some(object)
}

/// Names of Secrets that a spec refers to.
fn secrets_of(value: &Value) -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    match value {
        Value::Object(fields) => {
            for (field, value) in fields {
                let field = field.to_ascii_lowercase();
                if field.ends_with("secretref") || field == "secretkeyref" {
                    names.extend(value["name"].as_str().map(str::to_owned));
                }
                if field == "secretname" {
                    names.extend(value.as_str().map(str::to_owned));
                }
                names.extend(secrets_of(value));
            }
        }
        Value::Array(items) => names.extend(items.iter().flat_map(secrets_of)),
        _ => {}
    }
    names
}

fn text(objects: &[Value]) -> String {
    let documents: Vec<String> = objects
        .iter()
        .map(|object| yaml(object).trim_end().to_owned())
        .collect();
    let text = documents.join("\n---\n") + "\n";
    text.chars()
        .filter(|c| ['\n', '\t'].contains(c) || !c.is_control())
        .collect()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests;
