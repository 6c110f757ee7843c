//! Makes series, each registered, and with a definition.

use std::cell::RefCell;

use prometheus::core::Collector;
use prometheus::{
    Error, Gauge, HistogramOpts, HistogramVec, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry,
};

use super::definition::{Definition, Type};

/// Makes series of a registry. Fails only for a name that exists already, or is not valid.
#[derive(Clone, Copy)]
pub struct Series<'a> {
    registry: &'a Registry,
    definitions: &'a RefCell<Vec<Definition>>,
}

impl<'a> Series<'a> {
    pub fn new(registry: &'a Registry, definitions: &'a RefCell<Vec<Definition>>) -> Series<'a> {
        Series {
            registry,
            definitions,
        }
    }

    fn define(self, type_: Type, name: &'static str, help: &'static str, labels: &'static [&'static str]) {
        self.definitions.borrow_mut().push(Definition {
            name,
            help,
            type_,
            labels,
        });
    }

    fn register<S: Collector + Clone + 'static>(self, series: S) -> Result<S, Error> {
        self.registry.register(Box::new(series.clone()))?;
        Ok(series)
    }

    pub fn counters(
        self,
        name: &'static str,
        help: &'static str,
        labels: &'static [&'static str],
    ) -> Result<IntCounterVec, Error> {
        self.define(Type::Counter, name, help, labels);
        self.register(IntCounterVec::new(Opts::new(name, help), labels)?)
    }

    pub fn int_gauges(
        self,
        name: &'static str,
        help: &'static str,
        labels: &'static [&'static str],
    ) -> Result<IntGaugeVec, Error> {
        self.define(Type::Gauge, name, help, labels);
        self.register(IntGaugeVec::new(Opts::new(name, help), labels)?)
    }

    pub fn gauge(self, name: &'static str, help: &'static str) -> Result<Gauge, Error> {
        self.define(Type::Gauge, name, help, &[]);
        self.register(Gauge::new(name, help)?)
    }

    /// A whole number, such as 0 or 1.
    pub fn switch(self, name: &'static str, help: &'static str) -> Result<IntGauge, Error> {
        self.define(Type::Gauge, name, help, &[]);
        self.register(IntGauge::new(name, help)?)
    }

    /// `buckets` in seconds.
    pub fn histograms(
        self,
        name: &'static str,
        help: &'static str,
        buckets: &[f64],
        labels: &'static [&'static str],
    ) -> Result<HistogramVec, Error> {
        let options = HistogramOpts::new(name, help).buckets(buckets.to_vec());
        self.define(Type::Histogram, name, help, labels);
        self.register(HistogramVec::new(options, labels)?)
    }
}
