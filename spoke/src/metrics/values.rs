//! Figures of statuses as samples.

use crds::conditions;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};

use super::definition::Definition;
use super::resources::Sample;

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

    /// 1 while a condition is True.
    pub fn condition(&mut self, of: &'static Definition, list: &[Condition], type_: &str) {
        self.flag(of, conditions::is_true(list, type_));
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
