//! What to ask about first when more is due than the budget allows, and when all of it will have been asked about.
//!
//! Two lanes (contract section 9): what fell due lately comes first, and every fourth read goes to the one that waits longest, so
//! nothing starves. Among equals the price decides: the chance that the outcome is there, times the money that is at stake. Where no
//! webhooks come, every generation is read again and again, and those that are due take turns; a quarter goes to what fell due lately.

use std::cmp::Reverse;
use std::time::Duration;

use super::family::Family;
use super::id::GenerationId;
use super::money::Usd;
use super::schedule::Webhooks;
use super::time::Time;

/// A generation whose check is due.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Due {
    /// Which.
    pub id: GenerationId,
    /// Of which family.
    pub family: &'static Family,
    /// Since when.
    pub check_at: Time,
    /// When its time began.
    pub began_at: Time,
    /// When its outcome was expected.
    pub expected_by: Option<Time>,
    /// Answers "still running" in a row.
    pub running_streak: u32,
    /// Something was said about it that only the provider can settle: a claim to confirm, a contradiction, a body nobody could read.
    pub doubted: bool,
    /// What it cost.
    pub price: Option<Usd>,
}

/// Due for longer than this is backlog: what falls due is looked at within so long (reliability.md G9).
const FRESH: Duration = Duration::from_mins(2);
/// Of what fell due within so long of each other the price decides.
const EQUALLY_FRESH: Duration = Duration::from_secs(30);
/// Turns of the lanes: one for doubts, one for the silent, one for either, one for the oldest.
const TURNS: u64 = 4;
/// What a generation of unknown price counts as: five seconds in standard (provider.md section 2), in micro-dollars.
const USUAL_PRICE: i64 = 150_000;

/// Chooses what to ask about next.
///
/// Keeps count of reads given out, so that each lane's share holds even when they come one at a time.
#[derive(Debug, Default)]
pub struct Lanes {
    webhooks: Webhooks,
    given: u64,
}

impl Lanes {
    /// Lanes that have given nothing out yet.
    pub fn new(webhooks: Webhooks) -> Self {
        Self { webhooks, given: 0 }
    }

    /// Picks the next of what is due. `backlog` holds at least the ones that wait longest, `fresh` those that fell due last; they
    /// may come in any order and share members.
    pub fn pick(&mut self, fresh: &[Due], backlog: &[Due], now: Time) -> Option<GenerationId> {
        let lately = || fresh.iter().filter(|due| now.since(due.check_at) < FRESH);
        let dearest = |due: &&Due| order(due, now);
        let fresher = |due: &&Due| (self.rank(due, now), order(due, now));
        let freshest = || lately().min_by_key(fresher);
        let picked = match (self.given % TURNS, self.webhooks) {
            (0, _) => lately().filter(|due| due.doubted).min_by_key(fresher).or_else(freshest),
            (1, Webhooks::Expected) => lately().filter(|due| !due.doubted).min_by_key(fresher).or_else(freshest),
            (2, Webhooks::Expected) => freshest(),
            // Where no webhooks come, three of four: what was read just now and is due again is no better than what waits.
            _ => backlog.iter().min_by_key(|due| (due.check_at, order(due, now))),
        };
        let picked = picked.or_else(|| fresh.iter().chain(backlog).min_by_key(dearest))?;
        self.given += 1;
        Some(picked.id)
    }

    /// Who comes first of what fell due lately: the least. What fell due within the same half minute counts as equally fresh, so the
    /// price decides. Where no webhooks come, all that runs falls due again and again: then they take turns, whatever they cost.
    fn rank(&self, due: &Due, now: Time) -> u64 {
        let waits = now.since(due.check_at);
        match self.webhooks {
            Webhooks::Expected => waits.as_secs() / EQUALLY_FRESH.as_secs(),
            Webhooks::NotExpected => u64::MAX - u64::try_from(waits.as_millis()).unwrap_or(u64::MAX),
        }
    }
}

/// The dearest first; of equals the one that fell due last.
type Order = (Reverse<i64>, Reverse<Time>, GenerationId);

fn order(due: &Due, now: Time) -> Order {
    let price = due.price.map_or(USUAL_PRICE, Usd::as_micros);
    (Reverse(price.saturating_mul(chance(due, now))), Reverse(due.check_at), due.id)
}

/// The chance that the outcome is there, in eighths: finer would be guessing.
///
/// The longer something has taken already, the longer it will probably still take: that it ends within a tenth of the time it has run
/// so far has the same chance whether that is a minute or an hour.
fn chance(due: &Due, now: Time) -> i64 {
    let elapsed = whole_seconds(now.since(due.began_at));
    let expected = due.expected_by.map_or(elapsed, |by| whole_seconds(by.since(due.began_at)));
    if due.doubted || (due.running_streak == 0 && elapsed >= expected) {
        return 8;
    }
    if due.running_streak == 0 {
        return 8 * elapsed / expected.max(1);
    }
    // It was running when it was asked about last, which is about as long ago as the pause that made it due.
    let pause = whole_seconds(now.since(due.check_at)) + elapsed / 20;
    (8 * 3 * pause / (elapsed + 3 * pause).max(1)).clamp(1, 8)
}

/// Up to 136 years, so that nothing that is made of it overflows.
fn whole_seconds(span: Duration) -> i64 {
    i64::from(u32::try_from(span.as_secs()).unwrap_or(u32::MAX))
}

/// How long until everything that is due has been asked about once: `per_minute` reads, of which those take their share that fall due
/// meanwhile (`arriving` in `window`). `None` when more falls due than can be asked about.
pub fn forecast(due: u64, per_minute: u32, arriving: u64, window: Duration) -> Option<Duration> {
    let capacity = u64::from(per_minute) * window.as_secs() / 60;
    let left = capacity.checked_sub(arriving).filter(|left| *left > 0);
    match (due, left) {
        (0, _) => Some(Duration::ZERO),
        (_, None) => None,
        (due, Some(left)) => Some(Duration::from_secs(window.as_secs().saturating_mul(due).div_ceil(left))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Time = Time::from_ms(1_795_428_000_000);

    /// Due for so many seconds; its first look, at five seconds in standard.
    fn due(since_s: u64) -> Due {
        let check_at = NOW - Duration::from_secs(since_s);
        let began_at = check_at - Duration::from_secs(210);
        Due {
            id: GenerationId::fresh(check_at),
            family: &crate::domain::family::FAMILIES[0],
            check_at,
            began_at,
            expected_by: Some(began_at + Duration::from_mins(3)),
            running_streak: 0,
            doubted: false,
            price: Some(Usd::from_micros(150_000)),
        }
    }

    /// Picks until nothing is left.
    fn order(all: &[Due]) -> Vec<GenerationId> {
        let (mut left, mut lanes, mut picked) = (all.to_vec(), Lanes::default(), Vec::new());
        while let Some(id) = lanes.pick(&left, &left, NOW) {
            left.retain(|due| due.id != id);
            picked.push(id);
        }
        picked
    }

    fn ids(all: &[&Due]) -> Vec<GenerationId> {
        all.iter().map(|due| due.id).collect()
    }

    #[test]
    fn the_freshly_due_come_first_and_a_quarter_goes_to_the_one_that_waits_longest() {
        let all: Vec<_> = (0..12).map(|s| due(s * 10)).collect();
        let expected = [0, 1, 2, 11, 3, 4, 5, 10, 6, 7, 8, 9].map(|n: usize| all[n].id);
        assert_eq!(order(&all), expected);
    }

    #[test]
    fn the_backlog_gets_what_the_fresh_leave_and_never_less_than_a_quarter() {
        let (old, fresh): (Vec<_>, Vec<_>) = ((0..100).map(|s| due(7_200 + s)).collect(), (0..6).map(due).collect());
        let picked = order(&old.iter().chain(&fresh).cloned().collect::<Vec<_>>());
        let first: Vec<_> = picked.iter().take(8).map(|id| fresh.iter().any(|due| due.id == *id)).collect();
        assert_eq!(first, [true, true, true, false, true, true, true, false]);
        assert_eq!(picked.len(), 106);
    }

    #[test]
    fn the_dearer_comes_first_and_what_is_probably_still_running_last() {
        let (cheap, mut dear, mut running) = (due(5), due(20), due(15));
        dear.price = Some(Usd::from_micros(900_000));
        running.running_streak = 2;
        let mut early = due(0);
        early.expected_by = Some(NOW + Duration::from_mins(5));
        let picked = order(&[running.clone(), early.clone(), cheap.clone(), dear.clone()]);
        // The fourth read is the oldest's; here only one is left for it.
        assert_eq!(picked, ids(&[&dear, &cheap, &early, &running]));
    }

    #[test]
    fn the_chance_that_it_is_there_in_eighths() {
        let seen = |elapsed_s: u64, expected_s: Option<u64>, running_streak: u32, asked_s: u64| {
            let began_at = NOW - Duration::from_secs(elapsed_s);
            let expected_by = expected_s.map(|expected| began_at + Duration::from_secs(expected));
            let check_at = NOW - Duration::from_secs(asked_s);
            chance(&Due { check_at, began_at, expected_by, running_streak, ..due(0) }, NOW)
        };
        assert_eq!(seen(0, Some(180), 0, 0), 0);
        assert_eq!(seen(90, Some(180), 0, 0), 4);
        assert_eq!(seen(179, Some(180), 0, 0), 7);
        assert_eq!(seen(180, Some(180), 0, 0), 8);
        assert_eq!(seen(90, None, 0, 0), 8, "nobody knows how long it takes");
        assert_eq!(chance(&Due { doubted: true, running_streak: 3, ..due(0) }, NOW), 8);
        // Asked before, and running then: the longer ago, the likelier.
        assert_eq!(seen(0, None, 1, 0), 1);
        assert_eq!(seen(1_000, Some(180), 1, 0), 1);
        assert_eq!(seen(1_000, Some(180), 1, 300), 4);
        assert_eq!(seen(1_000, Some(180), 5, 300), 4);
        assert_eq!(seen(1_000, Some(180), 1, 1_000), 6);
        assert_eq!(seen(100, Some(180), 1, 10_000), 7, "never certain");
    }

    #[test]
    fn neither_doubts_nor_the_silent_can_take_it_all() {
        let silent: Vec<_> = (0..40).map(due).collect();
        let doubts: Vec<_> = (0..40).map(|s| Due { doubted: true, ..due(s) }).collect();
        let picked = order(&silent.iter().chain(&doubts).cloned().collect::<Vec<_>>());
        let of_doubts = picked[..40].iter().filter(|id| doubts.iter().any(|due| due.id == **id)).count();
        assert!((10..=30).contains(&of_doubts), "{of_doubts}");
    }

    #[test]
    fn the_first_turn_is_a_doubts_and_the_second_a_silent_ones() {
        let (silent, doubt) = (due(0), Due { doubted: true, ..due(0) });
        let other = Due { doubted: true, price: Some(Usd::from_micros(900_000)), ..due(0) };
        let all = [silent.clone(), doubt.clone(), other.clone(), due(0)];
        let mut lanes = Lanes::default();
        let picked = [0, 1, 2].map(|_| lanes.pick(&all, &all, NOW));
        assert_eq!(picked, [Some(other.id), Some(silent.id), Some(other.id)]);
    }

    #[test]
    fn what_is_due_for_two_minutes_is_not_fresh() {
        let dear = Due { price: Some(Usd::from_micros(900_000)), ..due(500) };
        let picked = |since_s| {
            let cheap = due(since_s);
            let picked = Lanes::default().pick(&[cheap.clone(), dear.clone()], &[], NOW);
            (picked == Some(cheap.id), picked == Some(dear.id))
        };
        assert_eq!([picked(119), picked(120)], [(true, false), (false, true)]);
    }

    /// So many generations that go on running, each due again twelve seconds after its read, for half an hour at a read every
    /// 1.25 s: the longest that each had to wait for a read, and how often each was read.
    fn shared(webhooks: Webhooks, count: u64) -> Vec<(Duration, u32)> {
        let mut lanes = Lanes::new(webhooks);
        let mut all: Vec<_> = (0..count).map(|n| Due { running_streak: 1, price: price_of(n), ..due(0) }).collect();
        let mut waits = vec![(Duration::ZERO, 0); all.len()];
        for read in 0..1_440 {
            let now = NOW + Duration::from_millis(1_250) * read;
            let ready: Vec<_> = all.iter().filter(|due| due.check_at <= now).cloned().collect();
            let Some(id) = lanes.pick(&ready, &ready, now) else { continue };
            let place = all.iter().position(|due| due.id == id).unwrap();
            waits[place] = (waits[place].0.max(now.since(all[place].check_at)), waits[place].1 + 1);
            all[place].check_at = now + Duration::from_secs(12);
        }
        waits
    }

    fn price_of(n: u64) -> Option<Usd> {
        [Some(Usd::from_micros(150_000)), Some(Usd::from_micros(900_000)), None][usize::try_from(n % 3).unwrap()]
    }

    #[test]
    fn without_webhooks_all_that_run_are_read_equally_often_whatever_they_cost() {
        let waits = shared(Webhooks::NotExpected, 40);
        let (fewest, most) = (waits.iter().map(|it| it.1).min().unwrap(), waits.iter().map(|it| it.1).max().unwrap());
        assert!(most - fewest <= 1, "{waits:?}");
        // Forty reads take fifty seconds.
        assert!(waits.iter().all(|(wait, _)| *wait <= Duration::from_secs(50)), "{waits:?}");
    }

    #[test]
    fn without_webhooks_nobody_starves_where_there_are_far_too_many() {
        let waits = shared(Webhooks::NotExpected, 300);
        assert!(waits.iter().all(|(wait, reads)| *reads >= 2 && *wait <= Duration::from_mins(20)), "{waits:?}");
    }

    #[test]
    fn nothing_is_left_to_pick_of_nothing() {
        assert_eq!(Lanes::default().pick(&[], &[], NOW), None);
    }

    #[test]
    fn the_forecast_counts_what_falls_due_meanwhile() {
        let ten = Duration::from_mins(10);
        assert_eq!(forecast(0, 48, 1_000, ten), Some(Duration::ZERO));
        assert_eq!(forecast(480, 48, 0, ten), Some(ten));
        assert_eq!(forecast(100_000, 48, 100, ten), Some(Duration::from_secs(157_895)));
        assert_eq!(forecast(1, 48, 480, ten), None);
    }
}
