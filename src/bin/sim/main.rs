//! The simulator: histories by the thousand, one again by its seed. `cargo run --release --bin sim -- --help`

#![allow(clippy::print_stdout, reason = "a command line tells what it found")]

mod pure;

use std::process::ExitCode;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use clap::{Parser, Subcommand};
use recoup::sim::{self, Heard, History, Kinds, Pollers, Scenario, Settings, SimError};
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
    /// Measures the worlds of docs/PERFORMANCE.md and prints its table.
    Table {
        /// Of their chances.
        #[arg(long, default_value_t = 1)]
        seed: u64,
        /// Leaves out the world that takes minutes to run.
        #[arg(long)]
        quick: bool,
    },
    /// Measures a world of clients that poll, kind by kind.
    Pollers {
        /// Of its chances.
        #[arg(long, default_value_t = 1)]
        seed: u64,
        /// What is bought: `o3`, `all`, `families`, or the number of one kind.
        #[arg(default_value = "all")]
        kinds: String,
        /// How many are bought.
        #[arg(default_value_t = 6_000)]
        bought: u32,
        /// How many a minute.
        #[arg(long, default_value_t = 60)]
        per_minute: u32,
        /// Lost webhooks in percent.
        #[arg(long, default_value_t = 2)]
        loss: u8,
        /// Of so many one takes up to twice as long as documented; 0 for none.
        #[arg(long, default_value_t = 0)]
        slow_one_in: u8,
        /// Polls cause no reads: what there is without them.
        #[arg(long)]
        without: bool,
    },
    /// Does again and again what every webhook costs before anything is written.
    Repeat {
        /// What of it.
        work: pure::Work,
        /// How many times.
        times: u32,
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
        Command::Repeat { work, times } => pure::repeat(work, times),
        Command::Pollers { seed, kinds, bought, per_minute, loss, slow_one_in, without } => {
            let kinds = match kinds.as_str() {
                "o3" => Kinds::O3,
                "families" => Kinds::Families,
                number => number.parse().map_or(Kinds::All, Kinds::One),
            };
            pollers(Pollers { seed, kinds, bought, per_minute, loss, slow_one_in, pulls: !without })
        }
        Command::Table { seed, quick } => match on_this_thread(async |memory| table(memory, seed, quick).await) {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => {
                println!("{error}");
                ExitCode::FAILURE
            }
        },
    }
}

/// One world of pollers, kind by kind.
fn pollers(world: Pollers) -> ExitCode {
    match on_this_thread(async |memory| sim::measure_pollers(memory, world).await) {
        Ok(measured) => {
            println!("{world:?}");
            println!(
                "{} bought, {} unsettled, {:.3} reads each",
                measured.generations,
                measured.unsettled,
                measured.reads_each()
            );
            println!("all: {}", heard(&measured.lost));
            println!("done in the last minute: {}", heard(&measured.last_minute));
            for (kind, of) in &measured.kinds {
                println!("{kind}: {}", heard(of));
            }
            ExitCode::SUCCESS
        }
        Err(error) => {
            println!("{error}");
            ExitCode::FAILURE
        }
    }
}

fn heard(heard: &Heard) -> String {
    format!(
        "{} lost and done in time, {:.1} % heard of; behind the provider {} s (median), {} s (95 %); left at least {} s",
        heard.of,
        100.0 * heard.in_time(),
        heard.behind(50).as_secs(),
        heard.behind(95).as_secs(),
        heard.left.first().copied().unwrap_or_default().as_secs()
    )
}

/// The worlds of docs/PERFORMANCE.md, part one.
async fn table(memory: &mut Memory, seed: u64, quick: bool) -> Result<(), SimError> {
    println!("| world | measured | goal |\n|---|---|---|");
    let row = |world: &str, measured: String, goal: &str| println!("| {world} | {measured} | {goal} |");
    for (slow_one_in, pace) in [(0, "as documented"), (30, "one in thirty takes up to twice as long")] {
        let usual = Scenario { seed, at_once: 0, later: 12_000, later_per_minute: 60, loss: 2, slow_one_in };
        let measured = sim::measure(memory, usual).await?;
        let world = format!(
            "{pace}, {} open at most, {} bought, {} webhooks lost",
            measured.open_max, measured.generations, measured.lost
        );
        let reads = format!(
            "{:.3} (a client that polls as documented: {:.1})",
            measured.reads_each(),
            measured.documented_reads_each()
        );
        row(&format!("{world}: reads for each generation"), reads, "at most 0.10 (about 25)");
        let found = format!("{:.1} %", 100.0 * measured.found_within(Duration::from_secs(90)));
        row("the same: lost ones found within 90 s of the end of their expected time", found, "95 %");
        row("the same: without an outcome in the end", measured.unsettled.to_string(), "0");
    }

    for (per_minute, minutes, shortest_only) in
        [(5, 200, true), (5, 200, false), (20, 200, false), (60, 10, false), (60, 200, false)]
    {
        reading(memory, sim::ReadingScenario { seed, bought: minutes * per_minute, per_minute, shortest_only }).await?;
    }
    polls(memory, seed, row).await?;

    let all_at_once = Scenario { seed, at_once: 5_000, later: 0, later_per_minute: 1, loss: 100, slow_one_in: 30 };
    let measured = sim::measure(memory, all_at_once).await?;
    let least = sim::unavoidable(all_at_once.at_once, 0);
    let longest = measured.found_after.last().copied().unwrap_or_default();
    row(
        &format!("all webhooks lost, {} open at once: longest wait", measured.open_max),
        against(longest, least),
        "at most 1.5 times",
    );
    row("the same: without an outcome in the end", measured.unsettled.to_string(), "0");
    if quick {
        return Ok(());
    }
    let backlog = Scenario { seed, at_once: 100_000, later: 28_000, later_per_minute: 10, loss: 100, slow_one_in: 30 };
    let measured = sim::measure(memory, backlog).await?;
    let least = sim::unavoidable(backlog.at_once, backlog.later_per_minute);
    let fresh = sim::at_most(&measured.first_looks, 99).as_secs();
    row(
        "100,000 overdue and 10 fresh a minute: first look at a fresh one, 99th percentile",
        format!("{fresh} s"),
        "at most 120 s",
    );
    row("the same: until the backlog is gone", against(measured.backlog, least), "at most 1.1 times");
    row("the same: without an outcome in the end", measured.unsettled.to_string(), "0");
    Ok(())
}

/// The world without a public address, its clients not polling.
async fn reading(memory: &mut Memory, scenario: sim::ReadingScenario) -> Result<(), SimError> {
    let measured = sim::measure_reading(memory, scenario).await?;
    let what = if scenario.shortest_only { "five seconds in standard" } else { "all six offers" };
    let behind = |percent| sim::at_most(&measured.behind, percent).as_secs();
    println!(
        "| no webhooks, not polled, {} a minute for {} minutes, {what}: behind the provider in the median, at the 95th and 100th percentile | \
         {} s, {} s, {} s, with {:.1} reads each | 20 s, 40 s for clients that poll |",
        scenario.per_minute,
        scenario.bought / scenario.per_minute.max(1),
        behind(50),
        behind(95),
        behind(100),
        measured.reads_each()
    );
    println!("| the same: without an outcome in the end | {} | 0 |", measured.unsettled);
    Ok(())
}

/// The worlds of clients that poll as the provider's own does.
async fn polls(memory: &mut Memory, seed: u64, row: impl Fn(&str, String, &str)) -> Result<(), SimError> {
    let usual =
        Pollers { seed, kinds: Kinds::All, bought: 12_000, per_minute: 60, loss: 2, slow_one_in: 0, pulls: true };
    let few = Pollers { bought: 1_500, per_minute: 5, loss: 100, ..usual };
    let worlds = [
        (
            "clients poll, every family, model and duration, 60 a minute, 2 % of the webhooks lost",
            "at most 0.10",
            usual,
        ),
        ("the same, O3 video only", "at most 0.10", Pollers { kinds: Kinds::O3, ..usual }),
        ("clients poll, 5 a minute, all webhooks lost", "none", few),
    ];
    for (world, goal, pollers) in worlds {
        let without = sim::measure_pollers(memory, Pollers { pulls: false, ..pollers }).await?;
        let measured = sim::measure_pollers(memory, pollers).await?;
        let reads = format!("{:.3} (without: {:.3})", measured.reads_each(), without.reads_each());
        row(&format!("{world}: reads for each generation"), reads, goal);
        let in_time = |heard: &Heard| 100.0 * heard.in_time();
        let found = format!(
            "{:.1} % of {} (without: {:.1} %)",
            in_time(&measured.lost),
            measured.lost.of,
            in_time(&without.lost)
        );
        row("the same: lost ones heard of before their client gives up", found, "all");
        let behind =
            |heard: &Heard| format!("{} s, 95 % within {} s", heard.behind(50).as_secs(), heard.behind(95).as_secs());
        let median = format!("{} (without: {})", behind(&measured.lost), behind(&without.lost));
        row("the same: behind the provider in the median", median, "");
        let worst = measured.kinds.iter().min_by_key(|(_, of)| of.left.first().copied().unwrap_or_default());
        let worst = worst.map(|(kind, of)| {
            let left = of.left.first().copied().unwrap_or_default().as_secs();
            format!("{kind}: {left} s, {:.1} % of {}", in_time(of), of.of)
        });
        row("the same: least time left to a client, in the worst kind", worst.unwrap_or_default(), "");
    }
    Ok(())
}

fn against(measured: Duration, least: Duration) -> String {
    let minutes = |span: Duration| span.as_secs() / 60;
    let times = measured.as_secs_f64() / least.as_secs_f64();
    format!("{} min, {times:.2} times the unavoidable {} min", minutes(measured), minutes(least))
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
    let (next, events, reads, failed) =
        (AtomicU64::new(0), AtomicU64::new(0), AtomicU64::new(0), AtomicBool::new(false));
    let said = Mutex::new(());
    std::thread::scope(|scope| {
        for core in 0..threads {
            let (next, events, reads, failed, said) = (&next, &events, &reads, &failed, &said);
            scope.spawn(move || {
                stay_on_core(core);
                let result = on_this_thread(async |memory| {
                    while !failed.load(Ordering::Relaxed) {
                        let nth = next.fetch_add(1, Ordering::Relaxed);
                        if nth >= count {
                            break;
                        }
                        let history = once(memory, from + nth).await?;
                        events.fetch_add(history.events, Ordering::Relaxed);
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
    let (events, reads) = (events.load(Ordering::Relaxed), reads.load(Ordering::Relaxed));
    if failed.load(Ordering::Relaxed) {
        return ExitCode::FAILURE;
    }
    println!(
        "{count} histories from seed {from}: {events} events, {reads} reads, no invariant broken, every hash the same twice"
    );
    ExitCode::SUCCESS
}

/// The database of a history is a thread of its own, and the two only ever wait for each other: on one core that costs least.
fn stay_on_core(nth: usize) {
    #[cfg(target_os = "linux")]
    if let Ok(allowed) = rustix::thread::sched_getaffinity(None) {
        let mut only = rustix::thread::CpuSet::new();
        if let Some(core) = (0..rustix::thread::CpuSet::MAX_CPU).filter(|core| allowed.is_set(*core)).nth(nth) {
            only.set(core);
        }
        // Where it may not be done it is slower, no more.
        rustix::thread::sched_setaffinity(None, &only).ok();
    }
}

async fn once(memory: &mut Memory, seed: u64) -> Result<History, SimError> {
    let history = sim::run(memory, seed, Settings::default()).await?;
    if seed.is_multiple_of(50) && sim::run(memory, seed, Settings::default()).await? != history {
        return Err(SimError::Unsteady(seed));
    }
    Ok(history)
}

fn on_this_thread<T>(work: impl AsyncFnOnce(&mut Memory) -> Result<T, SimError>) -> Result<T, SimError> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().map_err(SimError::Runtime)?;
    runtime.block_on(async {
        let mut memory = Memory::new().await?;
        work(&mut memory).await
    })
}
