//! Reading outcomes where no webhooks come: how often, how far behind the provider that is, and the one line that says so.
//!
//! When a read is due is `schedule.rs`' affair, in what order they are made `lanes.rs`'.

use std::time::Duration;

use super::schedule::{Rules, Webhooks};
use super::spelling::rough;

/// A generation past the middle of its expected time is read so often.
pub(super) const PAUSE_MIN: Duration = Duration::from_secs(10);
pub(super) const PAUSE_MAX: Duration = Duration::from_secs(15);

impl Rules {
    /// How far behind the provider an outcome is at most that comes after the middle of its expected time, when the read that waits
    /// longest is due for `waits`; `None` where webhooks bring the outcomes. (What is done earlier is found in that middle.)
    pub fn behind(&self, waits: Duration) -> Option<Duration> {
        (self.webhooks == Webhooks::NotExpected).then(|| PAUSE_MAX + waits)
    }
}

/// How outcomes are learned that are read, and how far behind that is: what stands behind the word `outcomes`, in one line for people.
pub fn explain(behind: Duration) -> String {
    format!(
        "read, as server.public_url is empty: from the middle of the expected time on about every 12 s, \
         at present at most {} behind the provider",
        rough(behind)
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::decision::tests::{reading, rules};
    use crate::domain::experience::Experience;
    use crate::domain::family::FAMILIES;
    use crate::domain::generation::{Generation, Request, State, Via};
    use crate::domain::id::GenerationId;
    use crate::domain::schedule::Confirm;
    use crate::domain::time::Time;

    /// Five seconds in standard: two to three minutes.
    fn bought() -> Generation {
        let request = Request { model: Some("kling_o3".to_owned()), duration_seconds: Some(5), prompt: None };
        let id = GenerationId::from_bytes(&[7; 16]).unwrap();
        Generation {
            request,
            state: State::Processing,
            ..Generation::new(id, &FAMILIES[0], Via::Api, Time::from_ms(0))
        }
    }

    #[test]
    fn without_webhooks_the_first_read_is_at_the_middle_and_lateness_counts_from_the_end_of_the_range() {
        let (reading, seconds) = (reading(), |seconds: i64| Time::from_ms(seconds * 1_000));
        assert_eq!(reading.first_check_at(&bought(), &Experience::default()), seconds(150));
        // What ended in time has been looked for by then.
        assert_eq!(reading.overdue_at(&bought()), seconds(180 + 15));
        assert_eq!(reading.stuck_at(&bought()), seconds(900));
        let nobody_knows = Generation { request: Request::default(), ..bought() };
        assert_eq!(reading.first_check_at(&nobody_knows, &Experience::default()), seconds(510));
    }

    #[test]
    fn without_webhooks_reads_are_ten_to_fifteen_seconds_apart_until_the_limit() {
        let reading = reading();
        let mut pauses_s = Vec::new();
        for streak in 0..200 {
            let mut generation = bought();
            generation.watch.running_streak = streak;
            let now = Time::from_ms(160_000);
            let pause = reading.recheck_at(&generation, now).since(now);
            assert!((PAUSE_MIN..=PAUSE_MAX).contains(&pause), "{streak}: {pause:?}");
            pauses_s.push(pause.as_secs());
        }
        pauses_s.sort_unstable();
        pauses_s.dedup();
        assert_eq!(pauses_s, [10, 11, 12, 13, 14], "spread over all of it");
        let after_s = |state: State, now_s: u64| {
            let now = Time::from_ms(0) + Duration::from_secs(now_s);
            reading.recheck_at(&Generation { state, ..bought() }, now).since(now).as_secs()
        };
        assert!(after_s(State::Processing, 899) < 15);
        assert_eq!([900, 4_499, 4_500].map(|now_s| after_s(State::Processing, now_s)), [300, 300, 3_600]);
        assert_eq!(after_s(State::Lost { at: Time::from_ms(0) }, 5_000), 15, "what is settled is asked about as ever");
    }

    #[test]
    fn how_far_behind_the_reads_are_is_told_only_where_nothing_else_brings_outcomes() {
        let waits = Duration::from_secs(7);
        assert_eq!(rules(Confirm::Untrusted).behind(waits), None);
        assert_eq!(reading().behind(waits), Some(Duration::from_secs(22)));
        let told = explain(Duration::from_secs(22));
        assert!(told.starts_with("read") && told.contains("22 s") && !told.contains('\n'), "{told}");
    }
}
