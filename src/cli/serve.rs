//! `recoup serve`: the service, until told to stop.

use std::process::ExitCode;
use std::sync::Arc;

use anyhow::bail;
use tokio_util::sync::CancellationToken;

use super::{PublicArguments, Signals, shield};
use crate::app::{App, Listeners};
use crate::clock::SystemClock;
use crate::config::Loaded;
use crate::domain::reading;
use crate::planted;
use crate::telemetry;

pub(super) async fn run(arguments: PublicArguments) -> anyhow::Result<ExitCode> {
    let sealed = if planted::is(planted::Fault::CoreDumped) { Ok(()) } else { shield::seal_memory() };
    let Loaded { config, file, warnings } = arguments.load()?;
    config.require_for_serve()?;
    // To the end: what is left of the traces is sent when this is dropped.
    let _traces = telemetry::start(&config.log)?;
    if !planted::is(planted::Fault::PanicTellsAll) {
        shield::silence_panics();
    }
    if let Err(error) = sealed {
        tracing::warn!(%error, "a crash may write secrets to disk: core dumps could not be switched off");
    }
    for warning in warnings {
        tracing::warn!(warning, "configuration");
    }
    let mut signals = Signals::listen()?;
    let stop = CancellationToken::new();
    let listeners = Listeners::bind(&config)?;
    let address = listeners.public.local_addr()?;
    let admin = listeners.admin.as_ref().and_then(|admin| admin.local_addr().ok());
    let app = App::start(&config, listeners, Arc::new(SystemClock::new()), stop.clone()).await?;
    tracing::info!(
        version = env!("CARGO_PKG_VERSION"), %address, admin = admin.map(tracing::field::display),
        config = file.map(|file| file.display().to_string()), database = config.database.url, "recoup is running"
    );
    if let Some(behind) = config.rules().behind(std::time::Duration::ZERO) {
        tracing::info!("outcomes are {}", reading::explain(behind));
    }
    let stopped = app.stopped();
    tokio::pin!(stopped);
    tokio::select! {
        () = signals.told_to_stop() => {
            tracing::info!("stopping: finishing what is in flight");
            stop.cancel();
        }
        died = &mut stopped => {
            died.map_err(anyhow::Error::msg)?;
            bail!("the service stopped by itself");
        }
    }
    stopped.await.map_err(anyhow::Error::msg)?;
    tracing::info!("stopped");
    Ok(ExitCode::SUCCESS)
}
