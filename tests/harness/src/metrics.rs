//! What the service shows to Prometheus.

use std::{collections::BTreeMap, fmt};

use anyhow::{Context, Result, ensure};
use prometheus_parse::{Scrape, Value};
use stonechat::metrics::catalogue;

/// Parts of the names of people, handles and servers in the stories. No value of a label has one.
const NAMES: [&str; 8] = [
    "alice",
    "sam",
    "kim",
    "bob",
    "mallory",
    "_dm",
    "localhost",
    "test",
];

/// The metrics as the service showed them at one time.
#[derive(Debug)]
pub struct Metrics(Scrape);

impl Metrics {
    /// Reads the text format. Fails if a metric is not in the catalogue, or if a label names
    /// somebody.
    pub fn parse(text: &str) -> Result<Self> {
        let lines = text.lines().map(|line| Ok(line.to_owned()));
        let scrape = Scrape::parse(lines).context("this is not Prometheus's format")?;
        ensure!(!scrape.samples.is_empty(), "nothing is shown");
        for sample in &scrape.samples {
            let name = sample.metric.as_str();
            let bare = ["_sum", "_count"].iter();
            let bare = bare.fold(name, |name, end| name.strip_suffix(end).unwrap_or(name));
            let mut known = catalogue::all();
            let known = known.find(|metric| metric.name == name || metric.name == bare);
            ensure!(
                known.is_some() || name.starts_with("process_"),
                "{name} is not in the catalogue"
            );
            for (label, value) in sample.labels.iter() {
                let mut declared = known.iter().flat_map(|metric| metric.labels);
                let declared = declared.find(|it| it.name == label.as_str());
                let declared = declared.with_context(|| format!("{name} has a label {label}"))?;
                ensure!(
                    declared.values.contain(value) && is_a_word(value),
                    "{name}: {label} is {value:?}"
                );
            }
        }
        Ok(Self(scrape))
    }

    /// Returns the sum of a metric over all series that have these labels; of a histogram, how many
    /// values it has seen. Equals nothing if there is no such metric or label.
    pub fn sum(&self, name: &str, labels: &[(&str, &str)]) -> f64 {
        let known = catalogue::all().find(|metric| metric.name == name);
        let is_known = |(label, value): &(&str, &str)| {
            let mut declared = known.iter().flat_map(|metric| metric.labels);
            declared.any(|it| it.name == *label && it.values.contain(value))
        };
        if known.is_none() && !name.starts_with("process_") || !labels.iter().all(is_known) {
            return f64::NAN;
        }
        let count = format!("{name}_count");
        let samples = self.0.samples.iter();
        let samples = samples.filter(|sample| sample.metric == name || sample.metric == count);
        let samples = samples.filter(|sample| {
            let mut expected = labels.iter();
            expected.all(|(label, value)| sample.labels.get(label) == Some(value))
        });
        let values = samples.map(|sample| match sample.value {
            Value::Counter(value) | Value::Gauge(value) | Value::Untyped(value) => value,
            Value::Histogram(_) | Value::Summary(_) => 0.0,
        });
        values.sum()
    }

    /// Returns the values of a label and how often each was counted.
    pub fn by(&self, name: &str, label: &str) -> BTreeMap<String, f64> {
        let mut values = BTreeMap::new();
        for sample in self.0.samples.iter().filter(|it| it.metric == name) {
            if let Some(value) = sample.labels.get(label) {
                values.insert(value.to_owned(), self.sum(name, &[(label, value)]));
            }
        }
        values
    }
}

impl fmt::Display for Metrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ours = self.0.samples.iter();
        for sample in ours.filter(|it| it.metric.starts_with("stonechat_")) {
            if let Value::Counter(value) | Value::Gauge(value) | Value::Untyped(value) =
                sample.value
            {
                writeln!(f, "{} {:?} {value}", sample.metric, sample.labels)?;
            }
        }
        Ok(())
    }
}

/// Whether a label's value is a word of the program, and part of nobody's name.
fn is_a_word(value: &str) -> bool {
    let plain = |c: char| c.is_ascii_alphanumeric() || "_-/.+".contains(c);
    let lower = value.to_lowercase();
    (1..=40).contains(&value.len())
        && value.chars().all(plain)
        && NAMES.iter().all(|name| !lower.contains(name))
}
