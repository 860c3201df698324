//! Which list of the provider is worth a read now, and what is remembered of the lists.
//!
//! One read of a list tells of up to a hundred generations: where several are due it takes the place of as many reads, and a purchase
//! whose answer was lost may stand in it. Which lists there are is not known: one that does not exist is not asked for again for an hour.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::domain::family::Family;
use crate::domain::id::GenerationId;
use crate::domain::lanes::Due;
use crate::domain::listing::{self, LostPurchase};
use crate::domain::time::Time;

/// A list that does not exist, or tells nothing of a family, is not asked for again for so long.
const ABSENT_FOR: Duration = Duration::from_hours(1);
/// A list that brought no answer rests for so long the first time, twice as long after the next one, and at most for so long: answers get
/// lost where the way to the provider is broken, and while it is, a caller waits for what stands in the list.
const REST: Duration = Duration::from_secs(5);
const REST_MAX: Duration = Duration::from_secs(30);
const REST_DOUBLINGS_MAX: u32 = 3;
/// So many reads of the list of another family without a word about this one, and it does not tell of it.
const LOOKS_IN_VAIN: u32 = 3;
/// So many due generations make a list worth a read that exists; one that is documented, and may; one that nobody documents.
const WORTH: usize = 2;
const WORTH_A_TRY: usize = 4;
const WORTH_A_GUESS: usize = 20;
/// Generations remembered that stood in no list.
const UNLISTED_MAX: usize = 10_000;

/// How often a lost purchase is looked for, by its age: often at first, while its caller waits.
const LOOKS: [(Duration, Duration); 4] = [
    (Duration::from_secs(30), Duration::from_secs(5)),
    (Duration::from_mins(2), Duration::from_secs(15)),
    (Duration::from_mins(10), Duration::from_mins(1)),
    (Duration::from_hours(1), Duration::from_mins(10)),
];
/// The same for those that are older.
const LATER_LOOKS: Duration = Duration::from_hours(1);

/// A list that is to be read, and what for.
#[derive(Clone, Debug)]
pub(super) struct ListChoice {
    /// Whose list it is.
    pub(super) list: &'static Family,
    /// The family that it is read for.
    pub(super) family: &'static Family,
    /// What is due to be asked about.
    pub(super) due: Vec<GenerationId>,
    /// Purchases that are looked for.
    pub(super) purchases: Vec<LostPurchase>,
}

/// What is known of a list as far as it tells of a family. Times are monotonic.
#[derive(Clone, Copy, Debug, Default)]
struct Known {
    read_at: Option<Duration>,
    /// It was read, and told of the family.
    exists: bool,
    rests_until: Duration,
    /// It told nothing of what was due, which is no reason not to look for lost purchases in it.
    rests_for_due_until: Duration,
    /// So many reads in a row brought no answer.
    silences: u32,
    in_vain: u32,
}

/// What is remembered of the lists.
#[derive(Debug, Default)]
pub(super) struct Lists(Mutex<Memory>);

#[derive(Debug, Default)]
struct Memory {
    /// By the list and the family it is read for.
    known: HashMap<(u8, u8), Known>,
    /// Generations that were asked about and stood in no list, and until when that counts.
    unlisted: HashMap<GenerationId, Duration>,
}

impl Memory {
    /// The list that tells of a family, as far as is known.
    fn list_of(&self, family: &'static Family, now: Duration) -> Option<&'static Family> {
        listing::lists_of(family).find(|list| self.of(list, family).rests_until <= now)
    }

    /// When the first of the lists that may tell of a family has rested.
    fn rests_until(&self, family: &'static Family) -> Option<Duration> {
        listing::lists_of(family).map(|list| self.of(list, family).rests_until).min()
    }

    fn of(&self, list: &Family, family: &Family) -> Known {
        self.known.get(&(list.code(), family.code())).copied().unwrap_or_default()
    }
}

impl Lists {
    fn memory(&self) -> MutexGuard<'_, Memory> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The list to look in for lost purchases now; else when to look next. `now`: monotonic, `today`: by the calendar.
    pub(super) fn choose_for_lost(
        &self,
        purchases: &[LostPurchase],
        now: Duration,
        today: Time,
    ) -> Result<ListChoice, Option<Duration>> {
        let memory = self.memory();
        let mut next: Option<Duration> = None;
        for (n, first) in purchases.iter().enumerate() {
            let family = first.generation.family;
            if purchases[..n].iter().any(|other| other.generation.family == family) {
                continue;
            }
            let of_family: Vec<_> = purchases.iter().filter(|one| one.generation.family == family).cloned().collect();
            let youngest = of_family.iter().map(|one| today.since(one.sent_at)).min().unwrap_or_default();
            let pause = LOOKS.iter().find(|(age, _)| youngest < *age).map_or(LATER_LOOKS, |(_, pause)| *pause);
            let look_at = match memory.list_of(family, now) {
                Some(list) => {
                    let look_at = memory.of(list, family).read_at.map_or(Duration::ZERO, |read_at| read_at + pause);
                    if look_at <= now {
                        return Ok(ListChoice { list, family, due: Vec::new(), purchases: of_family });
                    }
                    look_at
                }
                None => memory.rests_until(family).unwrap_or(now + ABSENT_FOR),
            };
            next = Some(next.map_or(look_at, |next| next.min(look_at)));
        }
        Err(next)
    }

    /// The list that tells of `picked` and of others that are due, where one read of it is worth more than one of `picked` alone.
    pub(super) fn choose_for_due(&self, picked: &Due, due: &[&Due], now: Duration) -> Option<ListChoice> {
        let memory = self.memory();
        let listed = |due: &Due| {
            let unlisted = memory.unlisted.get(&due.id).is_some_and(|until| *until > now);
            !due.doubted && due.family == picked.family && !unlisted
        };
        if !listed(picked) {
            return None;
        }
        let list = memory.list_of(picked.family, now)?;
        if memory.of(list, picked.family).rests_for_due_until > now {
            return None;
        }
        let limit = usize::try_from(listing::ENTRIES_MAX).unwrap_or(usize::MAX);
        let mut ids: Vec<_> = due.iter().filter(|due| listed(due)).map(|due| due.id).take(limit).collect();
        ids.sort_unstable();
        ids.dedup();
        let worth = match (memory.of(list, picked.family).exists, listing::is_documented(list, picked.family)) {
            (true, _) => WORTH,
            (false, true) => WORTH_A_TRY,
            (false, false) => WORTH_A_GUESS,
        };
        (ids.len() >= worth).then(|| ListChoice { list, family: picked.family, due: ids, purchases: Vec::new() })
    }

    /// Remembers that a list is read now.
    pub(super) fn begin(&self, choice: &ListChoice, now: Duration) {
        let mut memory = self.memory();
        memory.known.entry((choice.list.code(), choice.family.code())).or_default().read_at = Some(now);
    }

    /// Remembers that there is no such list, or that it brought no answer.
    pub(super) fn learn_silence(&self, choice: &ListChoice, is_absent: bool, now: Duration) {
        let mut memory = self.memory();
        let known = memory.known.entry((choice.list.code(), choice.family.code())).or_default();
        let rest = REST * 2_u32.saturating_pow(known.silences);
        known.rests_until = now + if is_absent { ABSENT_FOR } else { rest.min(REST_MAX) };
        known.silences = known.silences.saturating_add(1).min(REST_DOUBLINGS_MAX);
    }

    /// Remembers what a list told. `tells`: an entry of it is of the family it was read for; `told`: what was due and stood in it.
    pub(super) fn learn(&self, choice: &ListChoice, tells: bool, told: &[GenerationId], now: Duration) {
        let mut memory = self.memory();
        let known = memory.known.entry((choice.list.code(), choice.family.code())).or_default();
        known.in_vain = if tells { 0 } else { known.in_vain + 1 };
        known.exists |= tells;
        known.silences = 0;
        let of_another = choice.list != choice.family;
        if of_another && known.in_vain >= LOOKS_IN_VAIN {
            (known.rests_until, known.in_vain) = (now + ABSENT_FOR, 0);
        }
        if !choice.due.is_empty() && told.is_empty() {
            known.rests_for_due_until = now + ABSENT_FOR;
        }
        if memory.unlisted.len() > UNLISTED_MAX {
            memory.unlisted.retain(|_, until| *until > now);
        }
        let missing = choice.due.iter().filter(|id| !told.contains(id));
        memory.unlisted.extend(missing.map(|id| (*id, now + ABSENT_FOR)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::generation::{Generation, State, Via};
    use crate::domain::purchase::RequestOptions;

    const TODAY: Time = Time::from_ms(1_795_428_000_000);

    fn seconds(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    fn lost() -> Vec<LostPurchase> {
        let family = Family::of("veo").unwrap();
        let generation = Generation::new(GenerationId::fresh(TODAY), family, Via::Gateway, TODAY);
        let generation = Generation { state: State::Unconfirmed, ..generation };
        vec![LostPurchase { generation, options: RequestOptions::default(), sent_at: TODAY, answered_at: Some(TODAY) }]
    }

    /// When the list is looked into next, if it is not now.
    fn next_look(lists: &Lists, now: Duration) -> Option<Duration> {
        lists.choose_for_lost(&lost(), now, TODAY).err().flatten()
    }

    fn look(lists: &Lists, now: Duration) -> ListChoice {
        let choice = lists.choose_for_lost(&lost(), now, TODAY).unwrap();
        lists.begin(&choice, now);
        choice
    }

    #[test]
    fn while_a_caller_waits_a_list_that_did_not_answer_is_asked_again_soon_and_then_less_and_less_often() {
        let lists = Lists::default();
        let mut now = seconds(100);
        for rest in [5, 10, 20, 30, 30] {
            let choice = look(&lists, now);
            lists.learn_silence(&choice, false, now);
            assert_eq!(next_look(&lists, now), Some(now + seconds(rest)));
            now += seconds(rest);
        }
        lists.learn(&look(&lists, now), true, &[], now);
        now += seconds(5);
        let choice = look(&lists, now);
        lists.learn_silence(&choice, false, now);
        assert_eq!(next_look(&lists, now), Some(now + seconds(5)), "an answer makes it trusted again");
    }

    #[test]
    fn where_no_list_exists_it_is_looked_for_again_after_an_hour() {
        let lists = Lists::default();
        let now = seconds(100);
        lists.learn_silence(&look(&lists, now), true, now);
        assert_eq!(next_look(&lists, now), Some(now + ABSENT_FOR));
    }
}
