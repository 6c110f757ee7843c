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
    "Maintenance operations of this cluster by type (retention, unlock) and state (waiting, running, ended)",
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

/// Empty while another replica leads: also what a turn reports that was under way when leadership was lost.
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
