//! Histories in the suite: a few thousand seeds by the environment, and every planted fault caught.

use super::*;
use crate::planted::{self, Fault};
use crate::store::Memory;

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
    let seeds: u64 = std::env::var("RECOUP_SEEDS").map_or(40, |seeds| seeds.parse().unwrap());
    simulate(async |memory| {
        for seed in 0..seeds {
            match run(memory, seed, Settings::default()).await {
                Ok(history) => eprintln!("{seed} {history:?}"),
                Err(error) => panic!("{error}"),
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
        match caught {
            Some((seed, rule)) => eprintln!("{fault:?}, {seed}: {rule}"),
            None => missed.push(fault),
        }
    }
    assert_eq!(missed, []);
}
