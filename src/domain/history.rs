//! What happened in each hour or day of a span of time: what the charts draw. Sums only; which there are is the store's affair.

use std::time::Duration;

use super::decision::Disposition;
use super::family::Family;
use super::generation::Status;
use super::outcome::Source;
use super::time::Time;

const HOUR: Duration = Duration::from_hours(1);

/// How long one step of a chart is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bucket {
    /// An hour.
    Hour,
    /// A day, in UTC.
    Day,
}

impl Bucket {
    /// Its length in hours.
    pub const fn hours(self) -> i64 {
        match self {
            Self::Hour => 1,
            Self::Day => 24,
        }
    }

    /// Its length.
    pub const fn length(self) -> Duration {
        match self {
            Self::Hour => HOUR,
            Self::Day => Duration::from_hours(24),
        }
    }

    /// When the one that `at` lies in began.
    pub fn begin_of(self, at: Time) -> Time {
        let length_ms = self.hours() * 3_600_000;
        Time::from_ms(at.as_ms().div_euclid(length_ms).saturating_mul(length_ms))
    }
}

/// So many whole buckets up to and with the present one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span {
    /// How long each is.
    pub bucket: Bucket,
    /// How many.
    pub buckets: u32,
    /// When it is.
    pub now: Time,
}

impl Span {
    /// When the first bucket began.
    pub fn from(self) -> Time {
        self.bucket.begin_of(self.now) - self.bucket.length() * self.buckets.saturating_sub(1)
    }

    /// When the last one will end.
    pub fn until(self) -> Time {
        self.bucket.begin_of(self.now) + self.bucket.length()
    }

    /// The number of its first hour since 1970.
    pub fn from_hour(self) -> i64 {
        self.from().as_ms().div_euclid(3_600_000)
    }

    /// The number of the hour behind its last.
    pub fn until_hour(self) -> i64 {
        self.until().as_ms().div_euclid(3_600_000)
    }

    /// When each of its buckets began, oldest first.
    pub fn begins(self) -> impl Iterator<Item = Time> {
        (0..self.buckets).map(move |number| self.from() + self.bucket.length() * number)
    }
}

/// Outcomes of one bucket that are alike.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OutcomeTally {
    /// When the bucket began.
    pub at: Time,
    /// Where they were bought.
    pub family: &'static Family,
    /// What was asked for.
    pub model: Option<String>,
    /// A final one.
    pub status: Status,
    /// How they were learned; `None` for those refused and given up.
    pub source: Option<Source>,
    /// Found by a check while no webhook had come.
    pub recovered: bool,
    /// How many.
    pub outcomes: u64,
    /// How many of them by the time they were expected at.
    pub in_time: u64,
    /// From the purchase to the outcome, summed up.
    pub took: Duration,
}

/// Webhooks of one bucket that are alike.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WebhookTally {
    /// When the bucket began.
    pub at: Time,
    /// The family of their URL.
    pub family: &'static Family,
    /// What became of them.
    pub disposition: Disposition,
    /// How many.
    pub webhooks: u64,
    /// How many of them came behind the read that had found the outcome.
    pub late: u64,
    /// How long behind it, summed up.
    pub lag: Duration,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_span_ends_with_the_bucket_it_is_now() {
        let now = Time::parse("2026-11-23T10:59:59.999Z").unwrap();
        let span = Span { bucket: Bucket::Hour, buckets: 24, now };
        assert_eq!(
            (span.from().to_string(), span.until().to_string()),
            ("2026-11-22T11:00:00Z".to_owned(), "2026-11-23T11:00:00Z".to_owned())
        );
        assert_eq!(span.until_hour() - span.from_hour(), 24);
        assert_eq!(span.begins().last(), Some(Bucket::Hour.begin_of(now)));
        assert_eq!((span.from_hour(), span.until_hour()), (498_707, 498_731));
        let three = Span { buckets: 3, ..span }.begins().map(|begin| begin.to_string()).collect::<Vec<_>>();
        assert_eq!(three, ["2026-11-23T08:00:00Z", "2026-11-23T09:00:00Z", "2026-11-23T10:00:00Z"]);
        assert_eq!(Span { buckets: 0, ..span }.begins().count(), 0);
        let days = Span { bucket: Bucket::Day, buckets: 30, now };
        assert_eq!((days.from().to_string(), days.begins().count()), ("2026-10-25T00:00:00Z".to_owned(), 30));
        assert_eq!(Bucket::Day.begin_of(Time::from_ms(-1)), Time::from_ms(-86_400_000));
    }
}
