//! Charts as SVG, drawn by the templates from whole numbers; beside each the same figures as a table.

use std::time::Duration;

use askama::Template;

use super::text::{count, exact};
use crate::domain::history::{Bucket, Span};
use crate::domain::time::Time;

/// The frame of bar charts, in units of their drawing.
const WIDTH: u64 = 720;
const HEIGHT: u64 = 200;
/// Marks of the scale.
const STEPS: u64 = 4;

/// One kind of what is stacked.
#[derive(Clone, Copy, Debug)]
pub(super) struct Series {
    /// Its name.
    pub(super) name: &'static str,
    /// The class of its colour.
    pub(super) class: &'static str,
}

/// A part of a bar.
#[derive(Debug)]
struct Part {
    y: u64,
    height: u64,
    class: &'static str,
}

/// What happened in one bucket.
#[derive(Debug)]
struct Bar {
    x: u64,
    parts: Vec<Part>,
    label: String,
    values: Vec<String>,
    told: String,
}

/// A mark at an axis.
#[derive(Debug)]
struct Mark {
    at: u64,
    label: String,
}

/// Bars over time, stacked by series.
#[derive(Debug, Template)]
#[template(path = "bars.html")]
pub(super) struct Bars {
    id: &'static str,
    title: &'static str,
    series: Vec<(Series, String)>,
    columns: Vec<Bar>,
    bar_width: u64,
    scale: Vec<Mark>,
    days: Vec<Mark>,
    width: u64,
    height: u64,
    empty: bool,
}

/// How values are written.
pub(super) type Write = fn(u64) -> String;

impl Bars {
    /// `values`: for each bucket of the span one value of each series.
    pub(super) fn of(
        (id, title): (&'static str, &'static str),
        span: Span,
        series: &[Series],
        values: &[Vec<u64>],
        write: Write,
    ) -> Self {
        let highest = values.iter().map(|bucket| bucket.iter().sum::<u64>()).max().unwrap_or(0);
        let top = round_up(highest);
        let step = WIDTH / u64::from(span.buckets.max(1));
        let bars = span.begins().zip(values).zip(0_u64..);
        let bars = bars.map(|((at, values), place)| bar(at, span.bucket, place * step, series, values, top, write));
        let totals = series.iter().enumerate().map(|(place, series)| {
            let total = values.iter().filter_map(|bucket| bucket.get(place)).sum();
            (*series, write(total))
        });
        let scale =
            (0..=STEPS).map(|mark| Mark { at: HEIGHT - HEIGHT * mark / STEPS, label: write(top * mark / STEPS) });
        Self {
            id,
            title,
            series: totals.collect(),
            columns: bars.collect(),
            bar_width: step.saturating_sub(1 + u64::from(step > 8)).max(1),
            scale: scale.collect(),
            days: days(span, step),
            width: step * u64::from(span.buckets),
            height: HEIGHT,
            empty: highest == 0,
        }
    }

    /// For values that do not add up.
    pub(super) fn without_totals(mut self) -> Self {
        for (_, total) in &mut self.series {
            total.clear();
        }
        self
    }
}

fn bar(at: Time, bucket: Bucket, x: u64, series: &[Series], values: &[u64], top: u64, write: Write) -> Bar {
    let mut base = HEIGHT;
    let parts = series.iter().zip(values).filter(|(_, value)| **value > 0).map(|(series, value)| {
        // What is there is seen, however little it is.
        let height = (value.saturating_mul(HEIGHT) / top.max(1)).max(1).min(base);
        base -= height;
        Part { y: base, height, class: series.class }
    });
    let parts = parts.collect();
    let label = label(at, bucket);
    let told = series.iter().zip(values).filter(|(_, value)| **value > 0);
    let told: Vec<_> = told.map(|(series, value)| format!("{}: {}", series.name, write(*value))).collect();
    let told = if told.is_empty() { format!("{label}: nothing") } else { format!("{label}: {}", told.join(", ")) };
    Bar { x, parts, label, values: values.iter().map(|value| write(*value)).collect(), told }
}

fn label(at: Time, bucket: Bucket) -> String {
    let exact = exact(at);
    let cut = match bucket {
        Bucket::Hour => exact.get(..16),
        Bucket::Day => exact.get(..10),
    };
    cut.unwrap_or(&exact).to_owned()
}

/// A handful of labels under the bars.
fn days(span: Span, step: u64) -> Vec<Mark> {
    let each = usize::try_from(span.buckets.div_ceil(6)).unwrap_or(1).max(1);
    let marks = span.begins().zip(0_u64..).step_by(each);
    let short = |at: Time| {
        let exact = exact(at);
        let cut = match span.bucket {
            Bucket::Hour if span.buckets <= 48 => exact.get(11..16),
            Bucket::Hour | Bucket::Day => exact.get(5..10),
        };
        cut.unwrap_or(&exact).to_owned()
    };
    marks.map(|(at, place)| Mark { at: place * step, label: short(at) }).collect()
}

/// The next number that can be quartered and reads well.
fn round_up(highest: u64) -> u64 {
    let mut unit = 1_u64;
    loop {
        for top in [4, 8, 12, 20, 40] {
            let top = unit.saturating_mul(top);
            if top >= highest {
                return top;
            }
        }
        match unit.checked_mul(10) {
            Some(next) => unit = next,
            None => return u64::MAX,
        }
    }
}

/// How long one kind takes, beside what the provider promises.
#[derive(Debug)]
struct Range {
    y: usize,
    label: String,
    /// Begin and width.
    promised: (u64, u64),
    seen_from: Option<u64>,
    seen_width: Option<u64>,
    told: String,
}

/// A kind's times.
#[derive(Debug)]
pub(super) struct Times {
    /// What it is.
    pub(super) label: String,
    /// What the provider promises.
    pub(super) promised: (Duration, Duration),
    /// The middle and the slow end of the last ones.
    pub(super) seen: Option<(Duration, Duration)>,
    /// How many are known.
    pub(super) known: u64,
}

/// Times to outcome, a line for each kind.
#[derive(Debug, Template)]
#[template(path = "ranges.html")]
pub(super) struct Ranges {
    rows: Vec<Range>,
    marks: Vec<Mark>,
    height: usize,
}

/// Units of one line.
const LINE: usize = 28;

impl Ranges {
    pub(super) fn of(times: &[Times]) -> Self {
        let ends = times.iter().flat_map(|times| [Some(times.promised.1), times.seen.map(|seen| seen.1)]).flatten();
        let longest = ends.max().unwrap_or_default().as_secs().max(1);
        let top = if longest > 240 { round_up(longest.div_ceil(60)) * 60 } else { round_up(longest) };
        let place = |span: Duration| u64::try_from(span.as_millis() / u128::from(top)).unwrap_or(1_000);
        let row = |(number, times): (usize, &Times)| {
            let promised = format!(
                "promised {} to {}",
                super::text::clock(times.promised.0),
                super::text::clock(times.promised.1)
            );
            let told = match times.seen {
                None => format!("{promised}; none seen yet"),
                Some((median, p95)) => format!(
                    "{promised}; of the last {} half took no longer than {}, 95 % no longer than {}",
                    count(times.known.min(200)),
                    super::text::clock(median),
                    super::text::clock(p95)
                ),
            };
            Range {
                y: number * LINE,
                label: times.label.clone(),
                promised: (place(times.promised.0), place(times.promised.1).saturating_sub(place(times.promised.0))),
                seen_from: times.seen.map(|seen| place(seen.0)),
                // What hardly differs is seen all the same.
                seen_width: times.seen.map(|seen| place(seen.1).saturating_sub(place(seen.0)) + 4),
                told,
            }
        };
        let marks = (0..=STEPS).map(|mark| {
            let seconds = top * mark / STEPS;
            Mark { at: 1_000 * mark / STEPS, label: super::text::clock(Duration::from_secs(seconds)) }
        });
        Self { rows: times.iter().enumerate().map(row).collect(), marks: marks.collect(), height: times.len() * LINE }
    }
}

/// Many small bars in a line, without a scale.
#[derive(Debug, Template)]
#[template(path = "spark.html")]
pub(super) struct Spark {
    bars: Vec<(usize, u64, u64)>,
    width: usize,
    told: String,
}

impl Spark {
    /// `told`: what it says, for those who do not see it.
    pub(super) fn of(values: &[u64], told: String) -> Self {
        let top = values.iter().copied().max().unwrap_or(0).max(1);
        let bar = |(place, value): (usize, &u64)| {
            let height = if *value == 0 { 1 } else { (value.saturating_mul(32) / top).max(2) };
            (place * 6, 32 - height, height)
        };
        Self { bars: values.iter().enumerate().map(bar).collect(), width: values.len() * 6, told }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_scale_reads_well_and_holds_the_highest() {
        for (highest, top) in
            [(0, 4), (1, 4), (5, 8), (9, 12), (13, 20), (21, 40), (41, 80), (999, 1_200), (1_201, 2_000)]
        {
            assert_eq!(round_up(highest), top, "{highest}");
        }
        assert_eq!(round_up(u64::MAX), u64::MAX);
    }

    #[test]
    fn bars_stack_within_their_frame_and_little_is_seen() {
        let now = Time::parse("2026-11-23T10:30:00Z").unwrap();
        let span = Span { bucket: Bucket::Hour, buckets: 24, now };
        let series = [Series { name: "completed", class: "a" }, Series { name: "failed", class: "b" }];
        let mut values = vec![vec![0, 0]; 24];
        values[23] = vec![1, 9_999];
        let bars = Bars::of(("id", "title"), span, &series, &values, count);
        let last = &bars.columns[23];
        assert_eq!(last.parts.iter().map(|part| part.height).min(), Some(1));
        assert!(last.parts.iter().all(|part| part.y + part.height <= HEIGHT) && last.parts.len() == 2);
        assert_eq!(last.told, "2026-11-23 10:00: completed: 1, failed: 9\u{202f}999");
        assert!(bars.columns[0].told.ends_with("nothing") && !bars.empty && bars.render().unwrap().contains("<svg"));
    }
}
