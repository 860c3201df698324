//! Keeps the histograms small: what they took in is added up now and then, whether or not anybody asks for it.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use metrics_exporter_prometheus::PrometheusHandle;
use tokio_util::sync::CancellationToken;

use crate::clock::Clock;

/// A few ten thousand values at the most come together in so long.
const EVERY: Duration = Duration::from_secs(5);

/// Adds up until told to stop.
///
/// # Errors
/// None.
pub async fn run(metrics: PrometheusHandle, clock: Arc<dyn Clock>, stop: CancellationToken) -> Result<(), Infallible> {
    loop {
        tokio::select! {
            () = stop.cancelled() => return Ok(()),
            () = clock.sleep(EVERY) => metrics.run_upkeep(),
        }
    }
}
