//! What is known of each series before it has a value: for the exposition, and for docs/hub-metrics.md.

use std::cell::RefCell;

use prometheus::core::Collector;
use prometheus::{
    Gauge, Histogram, HistogramOpts, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry,
};

/// Type of a series.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Type {
    Counter,
    Gauge,
    Histogram,
}

impl Type {
    /// As the exposition format spells it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Type::Counter => "counter",
            Type::Gauge => "gauge",
            Type::Histogram => "histogram",
        }
    }
}

/// A series.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Definition {
    pub name: &'static str,
    pub help: &'static str,
    pub type_: Type,
    pub labels: &'static [&'static str],
}

/// Registers series, and notes their definitions.
pub(super) struct Series<'a> {
    pub registry: &'a Registry,
    pub definitions: RefCell<Vec<Definition>>,
}

type Made<T> = Result<T, prometheus::Error>;

impl Series<'_> {
    fn note<T: Collector + Clone + 'static>(&self, series: T, definition: Definition) -> Made<T> {
        self.registry.register(Box::new(series.clone()))?;
        self.definitions.borrow_mut().push(definition);
        Ok(series)
    }

    pub fn gauge(&self, name: &'static str, help: &'static str) -> Made<IntGauge> {
        self.note(IntGauge::new(name, help)?, of(name, help, Type::Gauge, &[]))
    }

    /// Of a number that is not whole.
    pub fn fraction(&self, name: &'static str, help: &'static str) -> Made<Gauge> {
        self.note(Gauge::new(name, help)?, of(name, help, Type::Gauge, &[]))
    }

    pub fn gauges(
        &self,
        name: &'static str,
        help: &'static str,
        labels: &'static [&'static str],
    ) -> Made<IntGaugeVec> {
        let series = IntGaugeVec::new(Opts::new(name, help), labels)?;
        self.note(series, of(name, help, Type::Gauge, labels))
    }

    pub fn counter(&self, name: &'static str, help: &'static str) -> Made<IntCounter> {
        self.note(IntCounter::new(name, help)?, of(name, help, Type::Counter, &[]))
    }

    pub fn counters(
        &self,
        name: &'static str,
        help: &'static str,
        labels: &'static [&'static str],
    ) -> Made<IntCounterVec> {
        let series = IntCounterVec::new(Opts::new(name, help), labels)?;
        self.note(series, of(name, help, Type::Counter, labels))
    }

    pub fn histogram(&self, name: &'static str, help: &'static str, buckets: &[f64]) -> Made<Histogram> {
        let options = HistogramOpts::new(name, help).buckets(buckets.to_vec());
        self.note(
            Histogram::with_opts(options)?,
            of(name, help, Type::Histogram, &[]),
        )
    }
}

const fn of(
    name: &'static str,
    help: &'static str,
    type_: Type,
    labels: &'static [&'static str],
) -> Definition {
    Definition {
        name,
        help,
        type_,
        labels,
    }
}
