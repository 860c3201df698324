//! The command line: one file per command. The only place of anyhow; `print.rs` is the only one that prints.
//!
//! Exit code 0 on success, 2 on bad usage or configuration, 75 when another process holds the database, 1 otherwise.

mod backup;
mod callback_url;
mod completions;
mod config;
mod demo;
mod doctor;
mod evidence;
mod generations;
mod health;
mod init;
mod man;
mod openapi;
mod print;
mod remote;
mod sandbox;
mod serve;
mod shield;
mod show;
mod status;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::app::BuildError;
use crate::config::{Config, ConfigError, Loaded};
use crate::domain::spelling;
use crate::store::{LockError, OpenError};
use print::{Colour, Unread, remark, say};
use remote::AskError;

/// Bad usage or configuration.
const EXIT_USAGE: u8 = 2;
/// Somebody else holds the database (`EX_TEMPFAIL` of sysexits.h).
const EXIT_LOCKED: u8 = 75;

/// Stands for `--public-url`.
const PUBLIC_URL_VARIABLE: &str = "RECOUP_SERVER__PUBLIC_URL";

/// Nobody pays for an AI video and is left with nothing.
#[derive(Debug, Parser)]
#[command(version, about, propagate_version = true)]
struct Arguments {
    /// When to write in colour
    #[arg(long, global = true, value_enum, value_name = "WHEN", default_value_t = Colour::Auto)]
    color: Colour,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the service until SIGINT or SIGTERM
    Serve(PublicArguments),
    /// Write a config file with fresh random secrets
    Init(PublicArguments),
    /// Watch lost videos come back: the whole thing on loopback, with a simulated provider
    Demo(demo::Arguments),
    /// Run the simulated provider alone, for your own tests
    Sandbox(sandbox::Arguments),
    /// How a running service is: at risk, open, webhooks, reads, events
    Status(status::Arguments),
    /// List generations
    Generations(generations::Arguments),
    /// Show one generation: state, money, diagnosis, timeline
    Show(show::Arguments),
    /// Look for what is wrong with the set-up, and say what to do
    Doctor(doctor::Arguments),
    /// Look at the configuration
    #[command(subcommand)]
    Config(config::Command),
    /// Print the standing callback URL of a family
    CallbackUrl(callback_url::Arguments),
    /// Write a consistent copy of the database while the service runs
    Backup(backup::Arguments),
    /// Print what is on record about a generation, to be sent to the provider's support
    Evidence(evidence::Arguments),
    /// Exit 0 when the service is ready: for container health checks
    Health(health::Arguments),
    /// Print the completions for a shell
    Completions(completions::Arguments),
    /// Print the manual, or write it as pages
    Man(man::Arguments),
    /// Print the API document (`OpenAPI` 3.1)
    Openapi,
}

/// Which configuration.
#[derive(Debug, Clone, clap::Args)]
struct ConfigArgument {
    /// The config file; by default the one in `$RECOUP_CONFIG`, else config.toml if there is one
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
}

/// Which configuration, and where the provider reaches it.
#[derive(Debug, Clone, clap::Args)]
struct PublicArguments {
    #[command(flatten)]
    config: ConfigArgument,
    /// The https address at which the provider reaches this service, "" for none; without one outcomes are read instead of told
    #[arg(long, value_name = "URL")]
    public_url: Option<String>,
}

impl PublicArguments {
    /// The configuration; what the command line says stands over file and environment.
    fn load(&self) -> Result<Loaded, ConfigError> {
        let public_url = self.public_url.iter().map(|url| (PUBLIC_URL_VARIABLE.to_owned(), url.clone()));
        Config::load(self.config.config.as_deref(), environment().chain(public_url))
    }
}

impl ConfigArgument {
    fn load(&self) -> Result<Loaded, ConfigError> {
        load(self.config.as_deref())
    }
}

fn load(file: Option<&Path>) -> Result<Loaded, ConfigError> {
    Config::load(file, environment())
}

fn environment() -> impl Iterator<Item = (String, String)> {
    let text = |value: std::ffi::OsString| value.to_string_lossy().into_owned();
    std::env::vars_os().map(move |(name, value)| (text(name), text(value)))
}

/// Runs the command the process was started with.
pub fn main() -> ExitCode {
    let arguments = match Arguments::try_parse() {
        Ok(arguments) => arguments,
        Err(error) => {
            // A closed pipe is no reason to fail.
            drop(error.print());
            return ExitCode::from(if error.use_stderr() { EXIT_USAGE } else { 0 });
        }
    };
    arguments.color.choose();
    match run(arguments.command) {
        Ok(code) => code,
        Err(error) if error.is::<Unread>() => ExitCode::SUCCESS,
        Err(error) => {
            complain(&error);
            ExitCode::from(exit_code(&error))
        }
    }
}

fn run(command: Command) -> anyhow::Result<ExitCode> {
    match command {
        Command::Serve(arguments) => block_on(serve::run(arguments)),
        Command::Init(arguments) => init::run(arguments.config.config.as_deref(), arguments.public_url.as_deref()),
        Command::Demo(arguments) => block_on(demo::run(arguments)),
        Command::Sandbox(arguments) => block_on(sandbox::run(arguments)),
        Command::Config(command) => config::run(command),
        Command::CallbackUrl(arguments) => callback_url::run(&arguments),
        Command::Backup(arguments) => block_on(backup::run(arguments)),
        Command::Evidence(arguments) => block_on(evidence::run(arguments)),
        Command::Health(arguments) => block_on(health::run(arguments)),
        Command::Status(arguments) => block_on(status::run(arguments)),
        Command::Generations(arguments) => block_on(generations::run(arguments)),
        Command::Show(arguments) => block_on(show::run(arguments)),
        Command::Doctor(arguments) => block_on(doctor::run(arguments)),
        Command::Completions(arguments) => completions::run(&arguments),
        Command::Man(arguments) => man::run(&arguments),
        Command::Openapi => openapi::run(),
    }
}

fn block_on(work: impl Future<Output = anyhow::Result<ExitCode>>) -> anyhow::Result<ExitCode> {
    tokio::runtime::Builder::new_multi_thread().enable_all().build()?.block_on(work)
}

/// Writes the whole chain of causes; never a backtrace.
fn complain(error: &anyhow::Error) {
    let chain: Vec<String> = error.chain().map(ToString::to_string).collect();
    // `thiserror`'s transparent variants repeat themselves.
    let mut told: Vec<&str> = Vec::new();
    for text in &chain {
        if told.last().is_none_or(|last| !last.contains(text.as_str())) {
            told.push(text);
        }
    }
    // What others said may be among it.
    remark(format!("error: {}", spelling::plain(&told.join(": "))));
}

fn exit_code(error: &anyhow::Error) -> u8 {
    let locked = |error: &OpenError| matches!(error, OpenError::Locked(LockError::Held { .. }));
    if error.downcast_ref::<ConfigError>().is_some() || matches!(error.downcast_ref(), Some(AskError::Refused(_))) {
        EXIT_USAGE
    } else if let Some(BuildError::Open(OpenError::Url(_))) = error.downcast_ref() {
        EXIT_USAGE
    } else if let Some(BuildError::Open(open)) = error.downcast_ref()
        && locked(open)
    {
        EXIT_LOCKED
    } else {
        1
    }
}

/// Hears of SIGTERM and SIGINT from the moment it is made.
struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    fn listen() -> std::io::Result<Self> {
        Ok(Self { terminate: signal(SignalKind::terminate())?, interrupt: signal(SignalKind::interrupt())? })
    }

    /// Ends when the process is told to stop.
    async fn told_to_stop(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}
