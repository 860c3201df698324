//! `recoup sandbox`: the simulated provider alone, for the user's own tests.

use std::net::SocketAddr;
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::Context;
use tokio_util::sync::CancellationToken;

use super::{Signals, say};
use crate::clock::SystemClock;
use crate::config::Log;
use crate::sandbox::{Chances, Idempotency, Lists, Sandbox, Settings, WORDS};
use crate::telemetry;

/// Percentages are chances of each purchase, drawn from the seed.
#[derive(Debug, clap::Args)]
#[command(after_help = WORDS)]
pub(super) struct Arguments {
    /// Where to listen
    #[arg(long, default_value = "127.0.0.1:8090")]
    listen: SocketAddr,
    /// The only API key it accepts [default: any]
    #[arg(long)]
    key: Option<String>,
    /// Of its chances
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// How many times faster than the real provider
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    speed: u32,
    /// Status reads a minute before it answers 429; 0 for no limit
    #[arg(long, default_value_t = 60)]
    status_reads_per_minute: u32,
    /// Signs its webhooks with this secret, in `X-RunBlob-Signature` [default: unsigned]
    #[arg(long)]
    webhook_secret: Option<String>,
    /// Which lists of generations there are: none, those its own client asks, with O1 and O3 in Kling's, or of every family
    #[arg(long, value_enum, default_value_t)]
    lists: Lists,
    /// What `X-Idempotency-Key` does
    #[arg(long, value_enum, default_value_t)]
    idempotency: Idempotency,
    /// Refuse callback URLs over http on loopback too
    #[arg(long)]
    https_callbacks_only: bool,
    /// Percent of generations that fail
    #[arg(long, default_value_t = 0, value_parser = percent())]
    fail: u8,
    /// Percent of webhooks that get lost
    #[arg(long, default_value_t = 0, value_parser = percent())]
    lose: u8,
    /// Percent of webhooks that come a minute late
    #[arg(long, default_value_t = 0, value_parser = percent())]
    late: u8,
    /// Percent of webhooks that come twice
    #[arg(long, default_value_t = 0, value_parser = percent())]
    double: u8,
    /// Percent of webhooks that are followed by their opposite
    #[arg(long, default_value_t = 0, value_parser = percent())]
    contradict: u8,
    /// Percent of webhooks that are cut in the middle
    #[arg(long, default_value_t = 0, value_parser = percent())]
    garble: u8,
}

pub(super) fn percent() -> clap::builder::RangedI64ValueParser<u8> {
    clap::value_parser!(u8).range(0..=100)
}

pub(super) async fn run(arguments: Arguments) -> anyhow::Result<ExitCode> {
    telemetry::log(&Log::default());
    let listener = tokio::net::TcpListener::bind(arguments.listen).await;
    let listener = listener.with_context(|| format!("cannot listen on {}", arguments.listen))?;
    let address = listener.local_addr()?;
    let settings = Settings {
        api_key: arguments.key,
        seed: arguments.seed,
        speed: arguments.speed,
        status_reads_per_minute: (arguments.status_reads_per_minute > 0).then_some(arguments.status_reads_per_minute),
        chances: Chances {
            fail: arguments.fail,
            lose: arguments.lose,
            late: arguments.late,
            double: arguments.double,
            contradict: arguments.contradict,
            garble: arguments.garble,
        },
        webhook_secret: arguments.webhook_secret,
        lists: arguments.lists,
        idempotency: arguments.idempotency,
        https_callbacks_only: arguments.https_callbacks_only,
        results_at: Some(format!("http://{address}")),
        ..Settings::default()
    };
    let sandbox = Sandbox::new(settings, Arc::new(SystemClock::new()))?;
    say(format!("The simulated provider listens on http://{address}. Set provider.base_url to that."))?;
    say(format!("Fates:  POST http://{address}/sandbox/plans   or [sandbox: fail=TIMEOUT lose] in a prompt (--help)"))?;
    say(format!("Faults: POST http://{address}/sandbox/faults  Ledger: GET http://{address}/sandbox/ledger"))?;
    let mut signals = Signals::listen()?;
    let stop = CancellationToken::new();
    let serving = sandbox.serve(listener, stop.clone());
    tokio::pin!(serving);
    tokio::select! {
        served = &mut serving => served?,
        () = signals.told_to_stop() => {
            stop.cancel();
            serving.await?;
        }
    }
    Ok(ExitCode::SUCCESS)
}
