//! Series of resources. They follow from spec and status alone, so a new leader has them all after the first turn of each
//! actor, and a resource's series change together: a label value of before never stays behind.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::definition::Definition;
use super::{backups, policies, repositories, restores};
use crate::world::Key;

/// A value of a series.
#[derive(Clone, Debug, PartialEq)]
pub struct Sample {
    pub of: &'static Definition,
    /// Values of the labels after `namespace` and `name`; for series without these, of all labels.
    pub labels: Vec<String>,
    pub value: f64,
}

impl Sample {
    #[must_use]
    pub fn new(of: &'static Definition, value: f64) -> Sample {
        Sample {
            of,
            labels: Vec::new(),
            value,
        }
    }

    #[must_use]
    pub fn labelled(of: &'static Definition, labels: Vec<String>, value: f64) -> Sample {
        Sample { of, labels, value }
    }
}

/// A resource that has series.
pub trait Measured {
    /// Its samples.
    fn samples(&self) -> Vec<Sample> {
        Vec::new()
    }
}

/// Operations of the maintenance lock, by type of their Job and by state.
pub const OPERATIONS: Definition = Definition::gauge(
    "fleet_operations",
    "Maintenance operations of this cluster by type of their Job (retention, unlock, check, key, or unknown) and state (waiting, running, ended)",
    &["type", "state"],
);

/// Every definition of a resource's series.
pub fn definitions() -> impl Iterator<Item = &'static Definition> {
    [
        backups::ALL,
        repositories::ALL,
        restores::ALL,
        policies::ALL,
        &[&OPERATIONS],
    ]
    .into_iter()
    .flatten()
    .copied()
}

type Pull = Box<dyn Fn() -> Vec<Sample> + Send + Sync>;

/// Holds samples only while this replica leads: those of a turn that ends after that are dropped.
#[derive(Default)]
struct Table {
    leads: bool,
    samples: BTreeMap<(&'static str, Key), Arc<[Sample]>>,
}

/// Samples of all resources of this cluster, while this replica leads.
#[derive(Default)]
pub struct Resources {
    table: Mutex<Table>,
    /// Asked at each scrape.
    pulled: Mutex<Vec<Pull>>,
}

impl Resources {
    fn lock(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Samples of a resource, in the place of those before. `kind` as in the API.
    pub fn set(&self, kind: &'static str, key: &Key, samples: Vec<Sample>) {
        let mut table = self.lock();
        if table.leads {
            table.samples.insert((kind, key.clone()), samples.into());
        }
    }

    /// The resource was deleted.
    pub fn remove(&self, kind: &'static str, key: &Key) {
        self.lock().samples.remove(&(kind, key.clone()));
    }

    /// This replica leads now, or does not any more: then another one has the series.
    pub fn leads(&self, leads: bool) {
        let mut table = self.lock();
        table.leads = leads;
        if !leads {
            table.samples.clear();
        }
    }

    /// Samples that are taken at each scrape.
    pub fn pull(&self, take: impl Fn() -> Vec<Sample> + Send + Sync + 'static) {
        let mut pulled = self.pulled.lock().unwrap_or_else(PoisonError::into_inner);
        pulled.push(Box::new(take));
    }

    /// Text exposition format.
    pub fn render(&self, into: &mut String) {
        let mut lines: BTreeMap<&'static str, (&'static Definition, String)> = BTreeMap::new();
        let mut put = |sample: &Sample, key: Option<&Key>| {
            let (_, text) = lines
                .entry(sample.of.name)
                .or_insert_with(|| (sample.of, String::new()));
            line(text, sample, key);
        };
        // Formatted without the lock: actors wait for it.
        let table = self.lock().samples.clone();
        for ((_, key), samples) in &table {
            samples.iter().for_each(|sample| put(sample, Some(key)));
        }
        let pulled = self.pulled.lock().unwrap_or_else(PoisonError::into_inner);
        let taken: Vec<Sample> = pulled.iter().flat_map(|take| take()).collect();
        taken.iter().for_each(|sample| put(sample, None));
        for (name, (definition, text)) in lines {
            let (help, type_) = (definition.help, definition.type_.as_str());
            into.push_str(&format!("# HELP {name} {help}\n# TYPE {name} {type_}\n{text}"));
        }
    }
}

fn line(into: &mut String, sample: &Sample, key: Option<&Key>) {
    let own = key.map(|key| [&*key.namespace, &*key.name]);
    let own = own.iter().flatten().copied();
    let values = own.chain(sample.labels.iter().map(String::as_str));
    let pairs: Vec<String> = sample
        .of
        .labels
        .iter()
        .zip(values)
        .map(|(label, value)| format!("{label}=\"{}\"", escaped(value)))
        .collect();
    into.push_str(&format!(
        "{}{{{}}} {}\n",
        sample.of.name,
        pairs.join(","),
        sample.value
    ));
}

fn escaped(value: &str) -> String {
    value
        .replace('\\', "\\\\")
        .replace('"', "\\\"")
        .replace('\n', "\\n")
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use crds::conditions::reasons;
    use crds::{GlobalRetentionPolicy, ResticBackup, ResticRepository, ResticRestore};
    use serde_json::{Value, json};

    use super::*;

    const TIME: &str = "2026-11-26T00:00:00Z";

    /// Samples of a resource are of every definition of its kind, and of no other.
    fn check<R: Measured + kube::Resource<DynamicType = ()> + serde::de::DeserializeOwned>(
        all: &[&Definition],
        spec: &Value,
        status: &Value,
    ) {
        let resource: R = serde_json::from_value(json!({
            "apiVersion": R::api_version(&()), "kind": R::kind(&()),
            "metadata": { "name": "x", "namespace": "shop", "creationTimestamp": TIME },
            "spec": spec, "status": status,
        }))
        .unwrap();
        let samples = resource.samples();
        let found: BTreeSet<&str> = samples.iter().map(|sample| sample.of.name).collect();
        let defined: BTreeSet<&str> = all.iter().map(|definition| definition.name).collect();
        assert_eq!(found, defined);
        for Sample { of, labels, .. } in &samples {
            assert_eq!(of.labels.len(), labels.len() + 2, "{}", of.name);
        }
    }

    #[test]
    fn each_sample_is_defined_and_each_definition_has_a_sample() {
        let schedule = |spec: Value| {
            let mut all = json!({ "repositoryRef": { "name": "nas" }, "schedule": "@daily" });
            let fields = all.as_object_mut().unwrap();
            fields.extend(spec.as_object().unwrap().clone());
            all
        };
        check::<ResticBackup>(
            backups::ALL,
            &schedule(json!({ "source": {} })),
            &json!({
                "lastBackup": { "result": "Succeeded", "startTime": TIME, "completionTime": TIME, "bytesProcessed": 1,
                    "bytesAdded": 1, "filesProcessed": 1 },
                "nextBackup": TIME, "lastSuccessfulBackup": TIME,
            }),
        );
        check::<GlobalRetentionPolicy>(
            policies::ALL,
            &schedule(json!({ "policies": [] })),
            &json!({ "nextRun": TIME, "lastRun": TIME, "lastRunResult": "Applied", "snapshotsRemoved": 1,
                "repositorySizeBeforeBytes": 2, "repositorySizeAfterBytes": 1 }),
        );
        check::<ResticRepository>(
            repositories::ALL,
            &json!({ "repositoryURL": "rest:http://h/x", "credentialsSecretRef": { "name": "nas" } }),
            &json!({
                "statistics": { "totalSizeBytes": 1, "uncompressedSizeBytes": 1, "snapshotCount": 1, "totalFileCount": 1, "asOf": TIME },
                "locks": [{ "id": "a", "unchangedSince": TIME }],
                "lastUnlock": { "jobUID": "u", "time": TIME, "result": "Applied" },
                "lastIntegrityCheck": TIME,
            }),
        );
        check::<ResticRestore>(
            restores::ALL,
            &json!({ "snapshotID": "latest", "target": { "pvc": { "claimName": "data" } } }),
            &json!({ "startTime": TIME, "completionTime": TIME, "restoredSizeBytes": 1, "restoredFiles": 1 }),
        );
    }

    fn values(samples: &[Sample], names: &[&str]) -> Vec<f64> {
        let value = |name: &&str| {
            samples
                .iter()
                .find(|sample| sample.of.name == *name)
                .unwrap()
                .value
        };
        names.iter().map(value).collect()
    }

    #[test]
    fn a_resource_with_a_schedule_has_its_values_under_its_own_names() {
        let meta = json!({ "name": "x", "namespace": "shop", "creationTimestamp": "1970-01-01T00:00:07Z" });
        let spec = json!({ "repositoryRef": { "name": "nas" }, "schedule": "@daily", "suspend": true, "source": {}, "policies": [] });
        let active = json!(["a", "b"]);
        let backup = json!({ "apiVersion": "v1", "kind": "x", "metadata": meta, "spec": spec,
            "status": { "active": active, "nextBackup": "1970-01-01T00:00:09Z" } });
        let policy = json!({ "apiVersion": "v1", "kind": "x", "metadata": meta, "spec": spec,
            "status": { "active": active, "nextRun": "1970-01-01T00:00:09Z" } });
        let backup: ResticBackup = serde_json::from_value(backup).unwrap();
        let policy: GlobalRetentionPolicy = serde_json::from_value(policy).unwrap();
        for (prefix, samples) in [
            ("fleet_backup", backup.samples()),
            ("fleet_retention", policy.samples()),
        ] {
            let names = [
                "info",
                "created_timestamp_seconds",
                "suspended",
                "running",
                "next_run_timestamp_seconds",
            ];
            let names = names.map(|name| format!("{prefix}_{name}"));
            let names = names.each_ref().map(String::as_str);
            assert_eq!(values(&samples, &names), [1.0, 7.0, 1.0, 2.0, 9.0], "{prefix}");
            assert_eq!(
                samples
                    .iter()
                    .find(|sample| sample.of.name == names[0])
                    .unwrap()
                    .labels,
                ["shop", "nas"]
            );
        }
    }

    #[test]
    fn a_repository_counts_as_damaged_by_reasons_of_its_data() {
        let damaged = |type_: &str, status: &str, reason: &str| {
            let condition = json!({ "type": type_, "status": status, "reason": reason, "message": "", "lastTransitionTime": TIME });
            let repository = json!({ "apiVersion": "v1", "kind": "x", "metadata": { "name": "nas" },
                "spec": { "repositoryURL": "rest:http://h/x", "credentialsSecretRef": { "name": "nas" } },
                "status": { "conditions": [condition] } });
            let repository: ResticRepository = serde_json::from_value(repository).unwrap();
            values(&repository.samples(), &["fleet_repository_damaged"])
        };
        assert_eq!(damaged("Ready", "False", reasons::REPOSITORY_CHANGED), [1.0]);
        assert_eq!(damaged("Degraded", "True", reasons::REPOSITORY_DAMAGED), [1.0]);
        assert_eq!(damaged("Ready", "False", reasons::REPOSITORY_UNREACHABLE), [0.0]);
    }
}
