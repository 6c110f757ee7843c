//! What is known of each series before it has a value: for the exposition, and for docs/metrics.md.

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

/// Labels of a series of one resource.
pub(super) const OWN: &[&str] = &["namespace", "name"];

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
