//! What is known of each series before it has a value: for the exposition, and for docs/metrics.md.

use prometheus::{
    Error, Gauge, HistogramOpts, HistogramVec, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry,
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

impl Definition {
    #[must_use]
    pub const fn gauge(
        name: &'static str,
        help: &'static str,
        labels: &'static [&'static str],
    ) -> Definition {
        Definition {
            name,
            help,
            type_: Type::Gauge,
            labels,
        }
    }

    #[must_use]
    pub const fn counter(
        name: &'static str,
        help: &'static str,
        labels: &'static [&'static str],
    ) -> Definition {
        Definition {
            type_: Type::Counter,
            ..Definition::gauge(name, help, labels)
        }
    }
}

/// Registers the series of the process, and keeps their definitions.
pub(super) struct Registrar {
    pub registry: Registry,
    pub definitions: Vec<Definition>,
}

impl Registrar {
    pub fn new() -> Registrar {
        // A registry of its own, not the process's: two spokes in one test process do not meet.
        Registrar {
            registry: Registry::new(),
            definitions: Vec::new(),
        }
    }

    pub fn counters(
        &mut self,
        name: &'static str,
        help: &'static str,
        labels: &'static [&'static str],
    ) -> Result<IntCounterVec, Error> {
        let series = IntCounterVec::new(Opts::new(name, help), labels)?;
        self.registry.register(Box::new(series.clone()))?;
        self.definitions.push(Definition::counter(name, help, labels));
        Ok(series)
    }

    pub fn gauges(
        &mut self,
        name: &'static str,
        help: &'static str,
        labels: &'static [&'static str],
    ) -> Result<IntGaugeVec, Error> {
        let series = IntGaugeVec::new(Opts::new(name, help), labels)?;
        self.registry.register(Box::new(series.clone()))?;
        self.definitions.push(Definition::gauge(name, help, labels));
        Ok(series)
    }

    pub fn gauge(&mut self, name: &'static str, help: &'static str) -> Result<IntGauge, Error> {
        let series = IntGauge::new(name, help)?;
        self.registry.register(Box::new(series.clone()))?;
        self.definitions.push(Definition::gauge(name, help, &[]));
        Ok(series)
    }

    pub fn time(&mut self, name: &'static str, help: &'static str) -> Result<Gauge, Error> {
        let series = Gauge::new(name, help)?;
        self.registry.register(Box::new(series.clone()))?;
        self.definitions.push(Definition::gauge(name, help, &[]));
        Ok(series)
    }

    pub fn histograms(
        &mut self,
        name: &'static str,
        help: &'static str,
        buckets: &[f64],
        labels: &'static [&'static str],
    ) -> Result<HistogramVec, Error> {
        let series = HistogramVec::new(HistogramOpts::new(name, help).buckets(buckets.to_vec()), labels)?;
        self.registry.register(Box::new(series.clone()))?;
        self.definitions.push(Definition {
            type_: Type::Histogram,
            ..Definition::gauge(name, help, labels)
        });
        Ok(series)
    }
}
