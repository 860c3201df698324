//! The simulator: histories by the thousand, one again by its seed. `cargo run --release --bin sim -- --help`

#![allow(clippy::print_stdout, reason = "a command line tells what it found")]

use std::process::ExitCode;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use clap::{Parser, Subcommand};
use recoup::sim::{self, History, Settings, SimError};
use recoup::store::Memory;

/// Runs recoup's real decisions, schedule, budget and SQL in a simulated world under virtual time.
#[derive(Debug, Parser)]
#[command(name = "sim")]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Runs histories and stops at the first broken invariant. Every fiftieth is run twice and compared hash for hash.
    Seeds {
        /// How many.
        #[arg(default_value_t = 2_000)]
        count: u64,
        /// The first seed.
        #[arg(long, default_value_t = 0)]
        from: u64,
    },
    /// Runs one history and prints its hash.
    Replay {
        /// Its seed.
        seed: u64,
    },
}

fn main() -> ExitCode {
    match Arguments::parse().command {
        Command::Seeds { count, from } => seeds(from, count),
        Command::Replay { seed } => replay(seed),
    }
}

fn replay(seed: u64) -> ExitCode {
    match on_this_thread(async |memory| sim::run(memory, seed, Settings::default()).await) {
        Ok(history) => {
            println!("seed {seed}: {history:?}");
            ExitCode::SUCCESS
        }
        Err(error) => {
            println!("{error}");
            ExitCode::FAILURE
        }
    }
}

/// One thread for each core; each takes the next seed.
fn seeds(from: u64, count: u64) -> ExitCode {
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let (next, steps, reads, failed) =
        (AtomicU64::new(0), AtomicU64::new(0), AtomicU64::new(0), AtomicBool::new(false));
    let said = Mutex::new(());
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                let result = on_this_thread(async |memory| {
                    while !failed.load(Ordering::Relaxed) {
                        let nth = next.fetch_add(1, Ordering::Relaxed);
                        if nth >= count {
                            break;
                        }
                        let history = once(memory, from + nth).await?;
                        steps.fetch_add(history.steps, Ordering::Relaxed);
                        reads.fetch_add(history.reads, Ordering::Relaxed);
                    }
                    Ok(())
                });
                if let Err(error) = result {
                    failed.store(true, Ordering::Relaxed);
                    let _one_at_a_time = said.lock();
                    println!("{error}");
                }
            });
        }
    });
    let (steps, reads) = (steps.load(Ordering::Relaxed), reads.load(Ordering::Relaxed));
    if failed.load(Ordering::Relaxed) {
        return ExitCode::FAILURE;
    }
    println!(
        "{count} histories from seed {from}: {steps} steps, {reads} reads, no invariant broken, every hash the same twice"
    );
    ExitCode::SUCCESS
}

async fn once(memory: &mut Memory, seed: u64) -> Result<History, SimError> {
    let history = sim::run(memory, seed, Settings::default()).await?;
    if seed % 50 == 0 && sim::run(memory, seed, Settings::default()).await? != history {
        return Err(SimError::Unsteady(seed));
    }
    Ok(history)
}

fn on_this_thread<T>(work: impl AsyncFnOnce(&mut Memory) -> Result<T, SimError>) -> Result<T, SimError> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(SimError::Runtime)?;
    runtime.block_on(async {
        let mut memory = Memory::new().await?;
        work(&mut memory).await
    })
}
