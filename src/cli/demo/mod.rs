//! `recoup demo`: watch lost videos come back. A simulated provider, the service and a client, all on loopback, all over
//! real HTTP; a minute of the provider takes a second here.
//!
//! What happens is the same for the same seed; only the clock differs. Needs no configuration and leaves nothing behind.

mod cast;
mod client;
mod report;

use std::net::{Ipv4Addr, TcpListener};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use indicatif::{ProgressBar, ProgressStyle};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use url::Url;

use self::cast::Role;
use self::client::{Client, Shown};
use super::{Signals, say};
use crate::app::{App, Listeners};
use crate::clock::{Clock, SystemClock};
use crate::config::{Config, Span};
use crate::domain::family::FAMILIES;
use crate::sandbox::{Fate, Plan, Sandbox, Settings};
use crate::secret::Secret;

/// How much faster than the real provider.
const SPEED: u32 = 60;
/// Time over which the purchases are spread.
const BUYING: Duration = Duration::from_secs(8);
/// Pause between two purchases while it stays up.
const LINGER: Duration = Duration::from_secs(4);
/// Longest pause between two purchases.
const PAUSE_MAX: Duration = Duration::from_millis(250);

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// How many generations the client buys
    #[arg(long, default_value_t = 24, value_parser = clap::value_parser!(u32).range(1..=2_000))]
    generations: u32,
    /// Percent of webhooks that get lost
    #[arg(long, default_value_t = 30, value_parser = super::sandbox::percent())]
    lose: u8,
    /// What happens is the same for the same seed
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Leave when everything is accounted for, instead of staying up to be looked at
    #[arg(long)]
    exit: bool,
}

/// Everything that runs.
struct Stage {
    sandbox: Arc<Sandbox>,
    app: App,
    client: Client,
    stop: CancellationToken,
    playing: JoinSet<anyhow::Result<()>>,
    folder: Folder,
}

/// A folder that goes with the demo.
struct Folder(std::path::PathBuf);

impl Drop for Folder {
    fn drop(&mut self) {
        // What is left in the system's folder for such things, the system removes.
        drop(std::fs::remove_dir_all(&self.0));
    }
}

pub(super) async fn run(arguments: Arguments) -> anyhow::Result<ExitCode> {
    let clock: Arc<dyn Clock> = Arc::new(SystemClock::new());
    let roles = cast::cast(arguments.generations, arguments.lose, arguments.seed);
    let mut signals = Signals::listen()?;
    let stage = set_up(arguments.seed, &clock).await?;
    say(format!(
        "recoup demo: {} videos from a simulated provider, {} webhooks get lost on the way. A minute of the provider is a \
         second here.\n",
        roles.len(),
        roles.iter().filter(|role| role.is_lost()).count(),
    ))?;
    let played = tokio::select! {
        played = play(&stage, &roles, &*clock) => Some(played?),
        () = signals.told_to_stop() => None,
    };
    let Some(shown) = played else {
        strike(stage).await?;
        return Ok(ExitCode::FAILURE);
    };
    let accounted = report::print(&roles, &shown, &stage.sandbox.ledger())?;
    if !arguments.exit {
        say(format!(
            "\nThe page:  {}   log in with the key  {}   (Ctrl-C ends it)\nIt goes on buying, one every few seconds; the first of them never ends. Or ask it:",
            stage.client.base_url(),
            client::API_KEY
        ))?;
        say(format!(
            "  curl -s -H 'Authorization: Bearer {}' {}/v1/generations",
            client::API_KEY,
            stage.client.base_url()
        ))?;
        tokio::select! {
            ended = linger(&stage, &roles, &*clock) => ended?,
            () = signals.told_to_stop() => {}
        }
    }
    strike(stage).await?;
    Ok(if accounted { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

async fn set_up(seed: u64, clock: &Arc<dyn Clock>) -> anyhow::Result<Stage> {
    let stop = CancellationToken::new();
    let listener = tokio::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
    let provider = Url::parse(&format!("http://{}", listener.local_addr()?))?;
    let settings = Settings {
        api_key: Some(client::PROVIDER_KEY.to_owned()),
        seed,
        speed: SPEED,
        status_reads_per_minute: Some(60 * SPEED),
        results_at: Some(provider.as_str().trim_end_matches('/').to_owned()),
        ..Settings::default()
    };
    let sandbox = Sandbox::new(settings, Arc::clone(clock))?;
    let mut playing = JoinSet::new();
    let serving = Arc::clone(&sandbox).serve(listener, stop.clone());
    playing.spawn(async move { Ok(serving.await?) });

    let folder = Folder(std::env::temp_dir().join(format!("recoup-demo-{}", std::process::id())));
    std::fs::create_dir_all(&folder.0).context("cannot make a folder for the demo's database")?;
    let public = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    let base_url = Url::parse(&format!("http://{}", public.local_addr()?))?;
    let config = config(&base_url, &provider, &folder.0.join("recoup.db"));
    let app = App::start(&config, Listeners { public, admin: None }, Arc::clone(clock), stop.clone()).await?;
    Ok(Stage { client: Client::new(&base_url)?, sandbox, app, stop, playing, folder })
}

/// The defaults, with every time divided by the speed; the budget of reads runs faster too.
fn config(public_url: &Url, provider: &Url, database: &std::path::Path) -> Config {
    let mut config = Config::default();
    let fast = |span: &mut Span| span.0 /= SPEED;
    config.server.public_url = Some(public_url.clone());
    config.server.shutdown_timeout = Span(Duration::from_secs(2));
    config.database.url = format!("sqlite://{}", database.display());
    config.provider.base_url = provider.clone();
    config.provider.api_key = Secret::new(client::PROVIDER_KEY);
    config.provider.status_checks_per_minute *= SPEED;
    config.webhook.secrets = vec![Secret::new("a secret of the demo, good for loopback only")];
    config.api.key = Secret::new(client::API_KEY);
    let reconcile = &mut config.reconcile;
    for span in [
        &mut reconcile.grace,
        &mut reconcile.webhook_retry_window,
        &mut reconcile.hard_limit,
        &mut reconcile.refund_window,
        &mut reconcile.not_found_recheck,
        &mut reconcile.give_up_after,
    ] {
        fast(span);
    }
    reconcile.recheck.iter_mut().chain(&mut reconcile.stuck_recheck).for_each(fast);
    for family in FAMILIES {
        let models = config.expected.entry(family.path.to_owned()).or_default();
        for model in family.models {
            let durations = models.entry(model.name.to_owned()).or_default();
            for offer in model.offers {
                let range = [Span(offer.expected.from / SPEED), Span(offer.expected.to / SPEED)];
                durations.insert(offer.seconds.to_string(), range);
            }
        }
    }
    config
}

/// Buys everything, then waits until every generation is final.
async fn play(stage: &Stage, roles: &[Role], clock: &dyn Clock) -> anyhow::Result<Vec<Shown>> {
    let total = u64::try_from(roles.len())?;
    let bar = ProgressBar::new(total)
        .with_style(ProgressStyle::with_template("{spinner} {bar:30} {pos}/{len} outcomes known   {msg}")?);
    bar.enable_steady_tick(Duration::from_millis(100));
    let pause = (BUYING / u32::try_from(roles.len())?).min(PAUSE_MAX);
    let mut waiting = JoinSet::new();
    let mut shown = Vec::new();
    let mut bought = 0_u64;
    for role in roles {
        stage.sandbox.plan_next(role.plan.clone());
        let id = stage.client.buy(role).await?;
        bought += 1;
        bar.set_message(format!("{bought} bought"));
        let (client, role) = (stage.client.clone(), role.clone());
        waiting.spawn(async move { anyhow::Ok((role, client.wait(&id).await?)) });
        clock.sleep(pause).await;
        while let Some(known) = waiting.try_join_next() {
            tell(&bar, known??, &mut shown)?;
        }
    }
    while let Some(known) = waiting.join_next().await {
        tell(&bar, known??, &mut shown)?;
    }
    bar.finish_and_clear();
    // Doubled and late webhooks of settled generations are still on their way.
    stage.sandbox.until(|ledger| ledger.iter().all(|bought| bought.attempts.len() >= bought.plan.webhooks.len())).await;
    let mut latest = Vec::new();
    for known in &shown {
        latest.push(stage.client.get(&known.id).await?);
    }
    Ok(latest)
}

/// Goes on buying, so that there is something to look at; the first of them never ends.
async fn linger(stage: &Stage, roles: &[Role], clock: &dyn Clock) -> anyhow::Result<()> {
    let endless =
        roles.first().map(|role| Role { plan: Plan { fate: Fate::NeverEnds, ..Plan::default() }, ..role.clone() });
    for (nth, role) in endless.iter().chain(roles.iter().cycle()).enumerate() {
        let role = Role { prompt: cast::prompt(roles.len() + nth), ..role.clone() };
        stage.sandbox.plan_next(role.plan.clone());
        stage.client.buy(&role).await?;
        clock.sleep(LINGER).await;
    }
    Ok(())
}

/// One line for each outcome, above the bar where there is a terminal.
fn tell(bar: &ProgressBar, (role, known): (Role, Shown), shown: &mut Vec<Shown>) -> anyhow::Result<()> {
    let line = report::line(&role, &known);
    bar.inc(1);
    if bar.is_hidden() {
        say(line)?;
    } else {
        bar.println(line);
    }
    shown.push(known);
    Ok(())
}

async fn strike(stage: Stage) -> anyhow::Result<()> {
    let Stage { app, stop, mut playing, folder, .. } = stage;
    stop.cancel();
    app.stopped().await.map_err(anyhow::Error::msg)?;
    while let Some(ended) = playing.join_next().await {
        ended??;
    }
    drop(folder);
    Ok(())
}
