//! What is looked at when somebody asks: a recorder that lives for one scrape, so that no series outlives what it stood for, and two
//! services in one process do not mix.

use metrics::Recorder;
use metrics_exporter_prometheus::PrometheusRecorder;

use super::counts::{METADATA, key};
use super::inventory::{self as all, Kind, Metric};
use super::process;

/// What is seen in one scrape.
#[derive(Debug)]
pub struct Gauges(PrometheusRecorder);

impl Gauges {
    /// Nothing yet but the process itself.
    pub fn new() -> Self {
        let gauges = Self(super::recorder());
        let Some(seen) = process::look() else { return gauges };
        gauges.set(&all::STARTED, &[], seen.started_at_s);
        gauges.set(&all::RESIDENT_BYTES, &[], float(seen.resident_bytes));
        gauges.set(&all::CPU_SECONDS, &[], float(seen.cpu_seconds));
        gauges.set(&all::OPEN_FILES, &[], float(seen.open_files));
        if let Some(most) = seen.open_files_max {
            gauges.set(&all::OPEN_FILES_MAX, &[], float(most));
        }
        gauges
    }

    /// Notes how something is. `words` are the labels' values, in their order.
    pub fn set(&self, metric: &Metric, words: &[&str], value: f64) {
        let key = key(metric, words);
        match metric.kind {
            // What another keeps count of; the exporter knows whole numbers only.
            #[expect(
                clippy::as_conversions,
                clippy::cast_possible_truncation,
                clippy::cast_sign_loss,
                reason = "saturates"
            )]
            Kind::Counter => self.0.register_counter(&key, &METADATA).absolute(value as u64),
            Kind::Gauge | Kind::Histogram(_) => self.0.register_gauge(&key, &METADATA).set(value),
        }
    }

    /// The same for whole numbers.
    pub fn count(&self, metric: &Metric, words: &[&str], value: u64) {
        self.set(metric, words, float(value));
    }

    /// In Prometheus' text form.
    pub fn render(&self) -> String {
        self.0.handle().render()
    }
}

impl Default for Gauges {
    fn default() -> Self {
        Self::new()
    }
}

#[expect(clippy::cast_precision_loss, clippy::as_conversions, reason = "Prometheus knows only floats")]
fn float(value: u64) -> f64 {
    value as f64
}
