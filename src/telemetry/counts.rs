//! Handles of a metric's series, made once: recording one is finding it by its words and an atomic addition.

use std::sync::OnceLock;

use metrics::{Counter, Histogram, Key, Label, Level, Metadata};

use super::inventory::Metric;

/// Where a metric comes from: nothing asks.
pub(super) const METADATA: Metadata<'static> = Metadata::new("recoup", Level::INFO, None);

/// The words of a metric's labels: every combination has a place.
#[derive(Debug)]
struct Places {
    metric: &'static Metric,
    words: Vec<Vec<&'static str>>,
}

impl Places {
    fn of(metric: &'static Metric) -> Self {
        Self {
            metric,
            words: metric.labels.iter().map(|label| label.values.map_or_else(Vec::new, |all| all())).collect(),
        }
    }

    fn count(&self) -> usize {
        self.words.iter().map(Vec::len).product()
    }

    /// `None` for a word that is not listed.
    fn find(&self, words: &[&str]) -> Option<usize> {
        let each = self.words.iter().zip(words);
        each.into_iter().try_fold(0, |place, (listed, word)| {
            Some(place * listed.len() + listed.iter().position(|known| known == word)?)
        })
    }

    fn words_at(&self, mut place: usize) -> Vec<&'static str> {
        let mut found = Vec::new();
        for listed in self.words.iter().rev() {
            found.extend(listed.get(place % listed.len()));
            place /= listed.len();
        }
        found.reverse();
        found
    }
}

/// The name and labels of one series.
pub(super) fn key(metric: &Metric, words: &[&str]) -> Key {
    let labels = metric.labels.iter().zip(words).map(|(label, word)| Label::new(label.name, (*word).to_owned()));
    Key::from_parts(metric.name, labels.collect::<Vec<_>>())
}

fn counter(metric: &Metric, words: &[&str]) -> Counter {
    metrics::with_recorder(|recorder| recorder.register_counter(&key(metric, words), &METADATA))
}

/// The series of a counter. Those whose words are listed are there from the start, at zero.
#[derive(Debug)]
pub(super) struct Counters {
    places: Places,
    handles: Vec<Counter>,
}

impl Counters {
    pub(super) fn of(metric: &'static Metric) -> Self {
        let places = Places::of(metric);
        let handles = (0..places.count()).map(|place| counter(metric, &places.words_at(place))).collect();
        Self { places, handles }
    }

    /// Adds to one series.
    pub(super) fn add(&self, words: &[&str], more: u64) {
        match self.places.find(words).and_then(|place| self.handles.get(place)) {
            Some(handle) => handle.increment(more),
            None => counter(self.places.metric, words).increment(more),
        }
    }
}

/// The series of a histogram, each made when it is first used: an empty one has a line for every bound.
#[derive(Debug)]
pub(super) struct Histograms {
    places: Places,
    handles: Vec<OnceLock<Histogram>>,
}

impl Histograms {
    pub(super) fn of(metric: &'static Metric) -> Self {
        let places = Places::of(metric);
        let handles = (0..places.count()).map(|_| OnceLock::new()).collect();
        let made = Self { places, handles };
        if metric.labels.is_empty() {
            made.handle(&[]);
        }
        made
    }

    /// Takes a value in.
    pub(super) fn record(&self, words: &[&str], value: f64) {
        if let Some(handle) = self.handle(words) {
            handle.record(value);
        }
    }

    fn handle(&self, words: &[&str]) -> Option<&Histogram> {
        let place = self.places.find(words).and_then(|place| self.handles.get(place))?;
        let key = || key(self.places.metric, words);
        Some(place.get_or_init(|| metrics::with_recorder(|recorder| recorder.register_histogram(&key(), &METADATA))))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::telemetry::inventory::ALL;

    #[test]
    fn every_combination_has_a_place_of_its_own_and_is_found_there() {
        for metric in ALL.iter().filter(|metric| metric.labels.iter().all(|label| label.values.is_some())) {
            let places = Places::of(metric);
            let all: BTreeSet<_> = (0..places.count()).map(|place| places.words_at(place)).collect();
            assert_eq!(all.len(), places.count(), "{}", metric.name);
            for place in 0..places.count() {
                assert_eq!(places.find(&places.words_at(place)), Some(place), "{}", metric.name);
            }
        }
        assert_eq!(Places::of(ALL[0]).find(&["kling", "unheard of"]), None);
    }
}
