//! Who plays what: prompts and fates, drawn from the seed.

use std::time::Duration;

use crate::sandbox::{Ping, PingBody, Plan, REASONS};

/// One purchase of the demo.
#[derive(Clone, Debug)]
pub(super) struct Role {
    pub(super) model: &'static str,
    pub(super) seconds: u32,
    pub(super) prompt: String,
    pub(super) plan: Plan,
}

impl Role {
    pub(super) fn is_lost(&self) -> bool {
        self.plan.webhooks.is_empty()
    }
}

const PROMPTS: [&str; 12] = [
    "a paper boat on a puddle",
    "an orange cat learning to swim",
    "rain on a neon street, slow pan",
    "a lighthouse made of glass",
    "two robots sharing an umbrella",
    "steam over a bowl of noodles",
    "a whale passing under a bridge",
    "dandelion seeds against the sun",
    "a train through snow at dusk",
    "an origami crane taking off",
    "a chess game between gulls",
    "coffee poured in reverse",
];
/// Of every hundred generations so many fail.
const FAIL_PERCENT: u32 = 25;
/// One webhook in so many comes twice.
const DOUBLED_ONE_IN: usize = 6;

/// Deals fates: exactly the wanted share loses its webhook, a quarter fails, some webhooks come twice.
pub(super) fn cast(generations: u32, lose_percent: u8, seed: u64) -> Vec<Role> {
    let mut chance = fastrand::Rng::with_seed(seed);
    let lost = deal(&mut chance, generations, u32::from(lose_percent));
    let failed = deal(&mut chance, generations, FAIL_PERCENT);
    // Of the webhooks that arrive, some come twice.
    let mut arrive: Vec<usize> = (0..lost.len()).filter(|n| !lost[*n]).collect();
    chance.shuffle(&mut arrive);
    arrive.truncate(arrive.len().div_ceil(DOUBLED_ONE_IN));
    let mut role = |(n, (lost, failed)): (usize, (bool, bool))| {
        let reason = REASONS[chance.usize(0..REASONS.len())];
        let mut plan = if failed { Plan::failed(reason) } else { Plan::completed() };
        if lost {
            plan = plan.lost();
        } else if arrive.contains(&n) {
            let again = Ping::new(PingBody::Documented, Duration::from_millis(400));
            plan = plan.with_webhooks([Ping::default(), again]);
        }
        Role {
            model: if chance.u8(0..4) == 0 { "kling_o3_pro" } else { "kling_o3" },
            seconds: [5, 5, 10, 15][chance.usize(0..4)],
            prompt: prompt(n),
            plan,
        }
    };
    lost.clone().into_iter().zip(failed).enumerate().map(&mut role).collect()
}

/// A prompt nobody else has: the same one bought twice is what the page warns of.
pub(super) fn prompt(nth: usize) -> String {
    let (take, words) = (nth / PROMPTS.len() + 1, PROMPTS[nth % PROMPTS.len()]);
    if take == 1 { words.to_owned() } else { format!("{words}, take {take}") }
}

/// Exactly so many percent of `count`, in random places.
fn deal(chance: &mut fastrand::Rng, count: u32, percent: u32) -> Vec<bool> {
    let hits = (count * percent + 50) / 100;
    let mut dealt: Vec<bool> = (0..count).map(|n| n < hits).collect();
    chance.shuffle(&mut dealt);
    dealt
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_seed_deals_the_same_fates_and_exactly_the_wanted_share_is_lost() {
        let fates = |seed| cast(24, 50, seed).into_iter().map(|role| role.plan).collect::<Vec<_>>();
        assert_eq!(fates(1), fates(1));
        assert_ne!(fates(1), fates(2));
        assert_eq!(cast(24, 50, 1).iter().filter(|role| role.is_lost()).count(), 12);
        let prompts: std::collections::BTreeSet<_> = cast(24, 50, 1).into_iter().map(|role| role.prompt).collect();
        assert_eq!(prompts.len(), 24, "none is bought twice");
        assert_eq!(cast(24, 0, 1).iter().filter(|role| role.is_lost()).count(), 0);
        assert_eq!(cast(7, 100, 1).iter().filter(|role| role.is_lost()).count(), 7);
    }
}
