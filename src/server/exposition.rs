//! The recorder of the service, and the text that Prometheus reads.

use metrics_exporter_prometheus::{BuildError, Matcher, PrometheusBuilder, PrometheusHandle};

use crate::metrics::{Metric, MetricKind, catalogue};

/// Why nothing can be recorded.
#[derive(Debug, thiserror::Error)]
pub enum ExpositionError {
    /// The catalogue has a histogram without bounds.
    #[error("the metrics cannot be set up: {0}")]
    Build(#[from] BuildError),
    /// The process has a recorder already.
    #[error("metrics are recorded already")]
    Installed,
}

/// The values of all metrics. Cheap to clone.
#[derive(Clone)]
pub struct Exposition {
    recorded: PrometheusHandle,
    process: metrics_process::Collector,
}

impl std::fmt::Debug for Exposition {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Exposition").finish_non_exhaustive()
    }
}

impl Exposition {
    /// Begins to record, for the whole process. What was counted before is lost.
    pub fn install() -> Result<Self, ExpositionError> {
        let mut builder = PrometheusBuilder::new();
        for metric in catalogue::all() {
            if let MetricKind::Histogram(bounds) = metric.kind {
                let name = Matcher::Full(metric.name.to_owned());
                builder = builder.set_buckets_for_metric(name, bounds)?;
            }
        }
        let recorder = builder.build_recorder();
        let recorded = recorder.handle();
        ::metrics::set_global_recorder(recorder).map_err(|_| ExpositionError::Installed)?;
        for metric in catalogue::all() {
            describe(metric);
        }
        let process = metrics_process::Collector::default();
        process.describe();
        Ok(Self { recorded, process })
    }

    /// Moves what histograms have collected to where it takes no more memory with time. To be called
    /// now and then, also if nobody reads the metrics.
    pub fn tidy(&self) {
        self.recorded.run_upkeep();
    }

    /// Returns all metrics in Prometheus's text format, version 0.0.4.
    pub fn render(&self) -> String {
        self.process.collect();
        self.recorded.run_upkeep();
        self.recorded.render()
    }
}

/// Says what a metric means, and shows all its series whose labels are known beforehand: Prometheus
/// would not see the first count of a series that begins with it.
fn describe(metric: &Metric) {
    match metric.kind {
        MetricKind::Counter => ::metrics::describe_counter!(metric.name, metric.help),
        MetricKind::Gauge => ::metrics::describe_gauge!(metric.name, metric.help),
        MetricKind::Histogram(_) => ::metrics::describe_histogram!(metric.name, metric.help),
    }
    for labels in metric.known_series() {
        match metric.kind {
            MetricKind::Counter => ::metrics::counter!(metric.name, labels).increment(0),
            MetricKind::Gauge => ::metrics::gauge!(metric.name, labels).set(0.0),
            MetricKind::Histogram(_) => drop(::metrics::histogram!(metric.name, labels)),
        }
    }
}
