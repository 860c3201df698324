//! What the service tells of itself: logs, metrics and traces; set up once in a process.
//!
//! Never holds a rule, never keeps a body, a key or a token. Everybody records through here, so every name is declared in one place
//! (`inventory.rs`).

mod counts;
pub mod gauges;
pub mod inventory;
mod logs;
pub mod meters;
mod process;
pub mod traces;

use std::sync::OnceLock;

use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle, PrometheusRecorder};

pub use logs::{log, start};

use inventory::{ALL, Kind};

/// The counters and histograms of this process.
pub fn metrics() -> PrometheusHandle {
    static HANDLE: OnceLock<PrometheusHandle> = OnceLock::new();
    HANDLE
        .get_or_init(|| {
            let recorder = recorder();
            let handle = recorder.handle();
            drop(metrics::set_global_recorder(recorder));
            meters::register();
            handle
        })
        .clone()
}

/// A recorder that knows what every metric means and how its histogram is cut.
fn recorder() -> PrometheusRecorder {
    let mut builder = PrometheusBuilder::new();
    for metric in ALL {
        if let Kind::Histogram(bounds) = metric.kind {
            let cut = builder.set_buckets_for_metric(Matcher::Full(metric.name.to_owned()), bounds);
            // Only a histogram without bounds is refused; a test holds the inventory to that.
            builder = cut.unwrap_or_else(|_| PrometheusBuilder::new());
        }
    }
    let recorder = builder.build_recorder();
    for metric in ALL {
        let (name, help) = (metric.name.into(), metric.help.into());
        match metric.kind {
            Kind::Counter => metrics::Recorder::describe_counter(&recorder, name, None, help),
            Kind::Gauge => metrics::Recorder::describe_gauge(&recorder, name, None, help),
            Kind::Histogram(_) => metrics::Recorder::describe_histogram(&recorder, name, None, help),
        }
    }
    recorder
}
