//! Histories in the suite: a few of them, and every planted fault caught. `.ci/run` runs thousands with the `sim` binary.

use super::*;
use crate::planted::{self, Fault};
use crate::store::Memory;

/// Enough to notice what breaks at once.
const SEEDS_FEW: u64 = 40;
/// A planted fault that so many histories do not show is missed.
const SEEDS_MAX: u64 = 300;

fn simulate<T>(work: impl AsyncFnOnce(&mut Memory) -> T) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let mut memory = Memory::new().await.unwrap();
        work(&mut memory).await
    })
}

#[test]
fn no_history_breaks_an_invariant() {
    simulate(async |memory| {
        for seed in 0..SEEDS_FEW {
            if let Err(error) = run(memory, seed, Settings::default()).await {
                panic!("{error}");
            }
        }
    });
}

#[test]
fn one_seed_is_one_history() {
    simulate(async |memory| {
        for seed in 0..10 {
            let first = run(memory, seed, Settings::default()).await.unwrap();
            assert_eq!(first, run(memory, seed, Settings::default()).await.unwrap());
        }
    });
}

#[test]
fn lost_videos_are_found_soon_with_few_reads() {
    let scenario = Scenario { seed: 3, at_once: 0, later: 900, later_per_minute: 60, loss: 10, slow_one_in: 0 };
    let measured = simulate(async |memory| measure(memory, scenario).await.unwrap());
    assert_eq!((measured.generations, measured.unsettled), (900, 0));
    let lost = u64::try_from(measured.lost).unwrap();
    assert!(lost > 40 && measured.reads <= lost * 11 / 10, "{} reads for {lost} lost ones", measured.reads);
    assert!(measured.found_within(std::time::Duration::from_secs(90)) >= 0.95, "{:?}", measured.found_after);
    assert!(measured.documented_reads_each() > 20.0, "{}", measured.documented_reads_each());
}

#[test]
fn without_webhooks_outcomes_are_read_soon_behind_the_provider() {
    let scenario = ReadingScenario { seed: 5, bought: 600, per_minute: 5, shortest_only: true };
    let measured = simulate(async |memory| measure_reading(memory, scenario).await.unwrap());
    assert_eq!((measured.generations, measured.unsettled), (600, 0));
    let seconds = |percent| at_most(&measured.behind, percent).as_secs();
    assert!(seconds(50) <= 20 && seconds(95) <= 40, "{} s, {} s", seconds(50), seconds(95));
    assert!(measured.reads <= 600 * 5 / 2, "{} reads", measured.reads);
}

#[test]
fn without_webhooks_everything_is_found_though_the_budget_does_not_suffice() {
    let scenario = ReadingScenario { seed: 6, bought: 900, per_minute: 60, shortest_only: false };
    let measured = simulate(async |memory| measure_reading(memory, scenario).await.unwrap());
    assert_eq!((measured.generations, measured.unsettled), (900, 0));
    let longest = measured.behind.last().unwrap();
    // Each has to be read once at the least: 900 reads of 48 a minute.
    assert!(*longest <= unavoidable(900, 0) * 2, "{longest:?}");
}

#[test]
fn a_backlog_is_worked_off_while_the_fresh_are_looked_at() {
    let scenario = Scenario { seed: 4, at_once: 600, later: 300, later_per_minute: 10, loss: 100, slow_one_in: 0 };
    let measured = simulate(async |memory| measure(memory, scenario).await.unwrap());
    assert_eq!((measured.generations, measured.unsettled), (900, 0));
    let fresh = at_most(&measured.first_looks, 95);
    assert!(fresh <= std::time::Duration::from_mins(2), "{fresh:?}");
    let least = unavoidable(scenario.at_once, 10);
    assert!(measured.backlog <= least.mul_f64(1.3), "{:?} for {least:?}", measured.backlog);
}

#[test]
fn every_planted_fault_is_caught() {
    let mut missed = Vec::new();
    for (fault, first) in Fault::ALL {
        planted::plant(Some(fault));
        let caught = simulate(async |memory| {
            for seed in first..first + SEEDS_MAX {
                match run(memory, seed, Settings::default()).await {
                    Ok(_) => {}
                    Err(SimError::Broken(broken)) => return Some((seed, broken.rule)),
                    Err(error) => panic!("{fault:?}: {error}"),
                }
            }
            None
        });
        planted::plant(None);
        if caught.is_none() {
            missed.push(fault);
        }
    }
    assert_eq!(missed, []);
}
