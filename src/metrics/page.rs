//! The page of the documentation, `docs/metrics.md`.

use std::fmt::Write as _;

use super::{LabelValues, Metric, MetricKind, catalogue};

const HEAD: &str = "\
# Metrics

<!-- Made from src/metrics/catalogue.rs. A test compares them; with STONECHAT_WRITE_SAMPLES=1 it
writes this file. -->

Stonechat shows metrics to [Prometheus](https://prometheus.io) if the configuration says where:

```yaml
metrics:
  listen: 127.0.0.1:29339
```

Prometheus then reads `http://127.0.0.1:29339/metrics`. Anybody who reaches the address can read
them, without a password. They name no person, room, handle or server, but show how much is written
and when, so keep the address on the loopback interface or in a private network.

```yaml
scrape_configs:
  - job_name: stonechat
    static_configs:
      - targets: [127.0.0.1:29339]
```

[contrib/grafana.json](../contrib/grafana.json) is a dashboard for Grafana (*Dashboards*, *New*,
*Import*), and [contrib/alerts.yaml](../contrib/alerts.yaml) has rules that say when to look, each
with what to do first. Both expect the name of the job to be `stonechat`. Counters begin at 0 with
each start unless their line says something else. A metric with a label whose values are not listed
appears when it is counted first.

Metrics of the process (`process_cpu_seconds_total`, `process_resident_memory_bytes`,
`process_open_fds` and others) have the names that all Prometheus clients use.
";

/// Returns the page.
pub fn page() -> String {
    let mut page = HEAD.to_owned();
    for group in catalogue::GROUPS {
        // Writing to a string cannot fail.
        let _ = write!(
            page,
            "\n## {}\n\n| metric | kind | labels | what it says |\n|---|---|---|---|\n",
            group.title
        );
        for metric in group.metrics {
            let _ = writeln!(
                page,
                "| `{}` | {} | {} | {} |",
                metric.name,
                kind(metric),
                labels(metric),
                metric.help
            );
        }
    }
    page
}

fn kind(metric: &Metric) -> &'static str {
    match metric.kind {
        MetricKind::Counter => "counter",
        MetricKind::Gauge => "gauge",
        MetricKind::Histogram(_) => "histogram",
    }
}

fn labels(metric: &Metric) -> String {
    let labels = metric.labels.iter();
    let labels = labels.map(|label| {
        let values = match label.values {
            LabelValues::OneOf(values) => values
                .iter()
                .map(|value| format!("`{value}`"))
                .collect::<Vec<_>>()
                .join(", "),
            LabelValues::Words(what) => what.to_owned(),
        };
        format!("`{}`: {values}", label.name)
    });
    labels.collect::<Vec<_>>().join("<br>")
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeSet, fs, path::Path};

    use super::*;

    fn repository(file: &str) -> String {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(file);
        fs::read_to_string(path).unwrap_or_default()
    }

    #[test]
    fn the_page_is_what_the_code_makes() {
        let made = page();
        if std::env::var_os("STONECHAT_WRITE_SAMPLES").is_some() {
            let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/metrics.md");
            fs::write(path, &made).unwrap();
        }
        assert_eq!(
            repository("docs/metrics.md"),
            made,
            "run this test with STONECHAT_WRITE_SAMPLES=1"
        );
    }

    #[test]
    fn names_follow_the_conventions_of_prometheus() {
        let mut names = BTreeSet::new();
        for metric in catalogue::all() {
            let name = metric.name;
            assert!(names.insert(name), "{name} stands twice");
            assert!(name.starts_with("stonechat_"), "{name}");
            let is_counter = metric.kind == MetricKind::Counter;
            assert_eq!(name.ends_with("_total"), is_counter, "{name}");
            if let MetricKind::Histogram(bounds) = metric.kind {
                assert!(name.ends_with("_seconds"), "{name}");
                assert!(bounds.is_sorted() && !bounds.is_empty(), "{name}");
            }
            assert!(metric.help.ends_with('.'), "{name}");
        }
    }

    /// Returns the names of metrics in a text, without what Prometheus adds to those of histograms.
    fn names_in(text: &str) -> BTreeSet<String> {
        let words = text.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
        let ours = words.filter(|word| word.starts_with("stonechat_"));
        ours.map(|name| {
            let histogram = ["_bucket", "_sum", "_count"].iter();
            let name = histogram.fold(name, |name, end| name.strip_suffix(end).unwrap_or(name));
            name.to_owned()
        })
        .collect()
    }

    #[test]
    fn the_dashboard_and_the_alerts_name_metrics_that_exist() {
        let known: BTreeSet<String> = catalogue::all().map(|it| it.name.to_owned()).collect();
        for file in ["contrib/grafana.json", "contrib/alerts.yaml"] {
            let named = names_in(&repository(file));
            assert!(named.len() >= 5, "{file}: {named:?}");
            let unknown: Vec<_> = named.difference(&known).collect();
            assert!(unknown.is_empty(), "{file}: {unknown:?}");
        }
        let dashboard: serde_json::Value =
            serde_json::from_str(&repository("contrib/grafana.json")).unwrap();
        let shown = names_in(&dashboard["panels"].to_string());
        let hidden: Vec<_> = known.difference(&shown).collect();
        assert!(hidden.is_empty(), "not on the dashboard: {hidden:?}");
    }
}
