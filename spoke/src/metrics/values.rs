//! Figures of statuses as samples.

use crds::common::CrossNamespaceObjectReference;
use crds::conditions;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, ObjectMeta, Time};

use super::definition::Definition;
use super::resources::Sample;

/// What [`Samples::scheduled`] shows.
pub(super) struct Scheduled<'a> {
    pub meta: &'a ObjectMeta,
    pub repository: &'a CrossNamespaceObjectReference,
    pub suspended: bool,
    /// Jobs.
    pub running: usize,
    pub next: Option<&'a Time>,
}

/// Collects samples of one resource.
#[derive(Default)]
pub(super) struct Samples(pub Vec<Sample>);

impl Samples {
    pub fn number(&mut self, of: &'static Definition, value: Option<f64>) {
        self.0.extend(value.map(|value| Sample::new(of, value)));
    }

    #[allow(clippy::cast_precision_loss, reason = "metrics are floats")]
    pub fn count(&mut self, of: &'static Definition, value: Option<i64>) {
        self.number(of, value.map(|value| value as f64));
    }

    pub fn length(&mut self, of: &'static Definition, value: usize) {
        self.count(of, i64::try_from(value).ok());
    }

    /// Unix time in seconds.
    pub fn time(&mut self, of: &'static Definition, value: Option<&Time>) {
        self.count(of, value.map(|time| time.0.as_second()));
    }

    pub fn flag(&mut self, of: &'static Definition, value: bool) {
        self.number(of, Some(f64::from(u8::from(value))));
    }

    /// 1 while a condition is True, for each of these types.
    pub fn conditions(&mut self, list: &[Condition], types: &[(&'static Definition, &str)]) {
        for (of, type_) in types {
            self.flag(of, conditions::is_true(list, type_));
        }
    }

    /// Seconds between two times.
    pub fn span(&mut self, of: &'static Definition, start: Option<&Time>, end: Option<&Time>) {
        let both = start.zip(end);
        self.number(
            of,
            both.map(|(start, end)| end.0.duration_since(start.0).as_secs_f64()),
        );
    }

    /// What every resource with a schedule has, under these definitions: its repository, when it was created, whether it
    /// is suspended, its Jobs under way, and when it runs next.
    pub fn scheduled(
        &mut self,
        [info, created, suspended, running, next]: [&'static Definition; 5],
        of: &Scheduled<'_>,
    ) {
        let own = of.meta.namespace.as_deref().unwrap_or_default();
        let repository = [of.repository.namespace_or(own), &of.repository.name];
        let repository = repository.map(str::to_owned).to_vec();
        self.0.push(Sample::labelled(info, repository, 1.0));
        self.time(created, of.meta.creation_timestamp.as_ref());
        self.flag(suspended, of.suspended);
        self.length(running, of.running);
        self.time(next, of.next);
    }

    /// 1 for the present state, 0 for the others of the set. One that is not in the set is `other`.
    pub fn state(
        &mut self,
        of: &'static Definition,
        states: &[&str],
        present: Option<&str>,
        other: Option<&str>,
    ) {
        let known = present.filter(|present| states.contains(present));
        let present = known.or_else(|| present.and(other));
        for state in states {
            let value = f64::from(u8::from(present == Some(*state)));
            self.0
                .push(Sample::labelled(of, vec![(*state).to_owned()], value));
        }
    }
}
