//! What can be measured about the service, and the calls that count it.
//!
//! [`catalogue`] lists the metrics; `docs/metrics.md` is made from it. Any part of the code counts by
//! naming a metric and the values of its labels: `METRIC.count(["accepted"])`. Without a recorder,
//! as in tests, a call does nothing. The server installs the recorder and shows the values.
//!
//! # No names
//!
//! More people may read metrics than the log, and metrics are kept for years. So the
//! value of a label is always a word of the program (`&'static str`). Nothing that came from outside
//! can become one: no person, room, handle or server. This also bounds the number of series.

pub mod catalogue;
mod page;

use std::time::Duration;

pub use page::page;

/// How a metric behaves.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum MetricKind {
    /// A number that only grows, from 0 at each start unless the metric says something else.
    Counter,
    /// A number that goes up and down.
    Gauge,
    /// How often a value lay below each of these bounds, with the sum of all values.
    Histogram(&'static [f64]),
}

/// A label of a metric.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MetricLabel {
    /// The name.
    pub name: &'static str,
    /// The values that it can have.
    pub values: LabelValues,
}

/// The values that a label can have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LabelValues {
    /// One of these.
    OneOf(&'static [&'static str]),
    /// One of the words that another part of the code has, which this describes.
    Words(&'static str),
}

impl LabelValues {
    /// Returns whether the label can have this value.
    pub fn contain(self, value: &str) -> bool {
        match self {
            Self::OneOf(values) => values.contains(&value),
            Self::Words(_) => !value.is_empty(),
        }
    }
}

/// Something that is measured.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Metric {
    /// The name under which Prometheus knows it, with its unit.
    pub name: &'static str,
    /// How it behaves.
    pub kind: MetricKind,
    /// Its labels, in the order in which values are given.
    pub labels: &'static [MetricLabel],
    /// What it says, in one sentence.
    pub help: &'static str,
}

impl Metric {
    /// Adds 1 to a counter.
    pub fn count<const N: usize>(&self, values: [&'static str; N]) {
        self.add(values, 1);
    }

    /// Adds to a counter.
    pub fn add<const N: usize>(&self, values: [&'static str; N], more: u64) {
        debug_assert_eq!(self.kind, MetricKind::Counter, "{}", self.name);
        ::metrics::counter!(self.name, self.labelled(values)).increment(more);
    }

    /// Sets a counter that is kept elsewhere.
    pub fn reach<const N: usize>(&self, values: [&'static str; N], value: u64) {
        debug_assert_eq!(self.kind, MetricKind::Counter, "{}", self.name);
        ::metrics::counter!(self.name, self.labelled(values)).absolute(value);
    }

    /// Sets a gauge.
    #[expect(
        clippy::cast_precision_loss,
        reason = "Prometheus knows floating-point numbers only, exact to 2^53"
    )]
    pub fn set<const N: usize>(&self, values: [&'static str; N], value: u64) {
        debug_assert_eq!(self.kind, MetricKind::Gauge, "{}", self.name);
        ::metrics::gauge!(self.name, self.labelled(values)).set(value as f64);
    }

    /// Adds a duration to a histogram of seconds.
    pub fn observe<const N: usize>(&self, values: [&'static str; N], took: Duration) {
        debug_assert!(
            matches!(self.kind, MetricKind::Histogram(_)),
            "{}",
            self.name
        );
        ::metrics::histogram!(self.name, self.labelled(values)).record(took.as_secs_f64());
    }

    /// Returns the labels of every series that can be known beforehand: none if a label has other
    /// words than those that are listed.
    pub fn known_series(&self) -> Vec<Vec<::metrics::Label>> {
        let mut series = vec![Vec::new()];
        for label in self.labels {
            let LabelValues::OneOf(values) = label.values else {
                return Vec::new();
            };
            series = series
                .into_iter()
                .flat_map(|before: Vec<::metrics::Label>| {
                    values.iter().map(move |value| {
                        let mut labels = before.clone();
                        labels.push(::metrics::Label::from_static_parts(label.name, value));
                        labels
                    })
                })
                .collect();
        }
        series
    }

    fn labelled<const N: usize>(&self, values: [&'static str; N]) -> Vec<::metrics::Label> {
        debug_assert_eq!(self.labels.len(), N, "{}", self.name);
        debug_assert!(
            self.labels
                .iter()
                .zip(values)
                .all(|(label, value)| label.values.contain(value)),
            "{} {values:?}",
            self.name
        );
        let pairs = self.labels.iter().zip(values);
        pairs
            .map(|(label, value)| ::metrics::Label::from_static_parts(label.name, value))
            .collect()
    }
}
