//! The provider's lists of generations: which there are, what an entry says, and whether one is a purchase whose answer was lost.
//!
//! Pure. Never takes a likeness for proof: prompt, model, length, options and time must all fit, and only one may. What cannot be told
//! apart is left to a person, or to the webhook, whose token names the purchase.

use std::time::Duration;

use serde_json::{Map, Value};

use super::family::{FAMILIES, Family};
use super::generation::Generation;
use super::id::ProviderId;
use super::notice::{Notice, Word};
use super::purchase::RequestOptions;
use super::schedule::Rules;
use super::shape;
use super::time::Time;
use crate::planted;

/// Entries asked for in one read: the provider's limit (provider.md section 13).
pub const ENTRIES_MAX: u32 = 100;
/// Entries read of a list that heeds no limit.
const READ_MAX: usize = 1_000;
/// How far the provider's clock may differ from ours.
const CLOCKS_APART: Duration = Duration::from_mins(2);
/// How far it may differ and still be looked at by a person.
const CLOCKS_FAR_APART: Duration = Duration::from_mins(10);

/// The families whose list may tell of `family`, the likeliest first: its own, and for what lies below another path the one above it.
/// Which of them exist, and whether the upper one lists what lies below, is not known (provider.md section 13).
pub fn lists_of(family: &'static Family) -> impl Iterator<Item = &'static Family> {
    let above = family.path.split_once('/').and_then(|(above, _)| Family::of(above));
    [Some(family), above].into_iter().flatten()
}

/// Whether it is documented that there is such a list, and that it tells of `family` (provider.md sections 1 and 13).
pub fn is_documented(list: &Family, family: &Family) -> bool {
    list.path == family.path && matches!(list.path, "kling" | "veo" | "sora" | "gemini" | "chatgpt-images")
}

/// One generation as a list tells of it.
#[derive(Clone, Debug, PartialEq)]
pub struct Entry {
    /// Which, and how it stands: the same words as in a status answer.
    pub notice: Notice,
    /// All fields.
    pub fields: Map<String, Value>,
}

/// A purchase whose answer was lost, to be looked for.
#[derive(Clone, Debug, PartialEq)]
pub struct LostPurchase {
    /// What is known of it.
    pub generation: Generation,
    /// What its request asked for beside prompt, model and length.
    pub options: RequestOptions,
    /// When it was sent.
    pub sent_at: Time,
    /// When its answer was given up; `None` while it is waited for.
    pub answered_at: Option<Time>,
}

/// Between which reads an entry came into the list.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Seen {
    /// The list was read last without it; `None` where it was not read before, or nobody knows when.
    pub absent_at: Option<Time>,
    /// This entry was seen first; `None`: now.
    pub entry_since: Option<Time>,
}

/// What a list says of a lost purchase.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Match {
    /// Nothing.
    Absent,
    /// This entry, by its place, is the purchase.
    One(usize),
    /// These could be it, and nobody can tell which, or whether it is one at all.
    Unsure(Vec<usize>),
}

/// Reads a list: a bare array of status objects, or one in an object under `data`, `items` or `generations`. Entries that cannot be read
/// are left out; `None` when it is no list.
pub fn read_list(body: &[u8]) -> Option<Vec<Entry>> {
    let entries = match serde_json::from_slice(body).ok()? {
        Value::Array(entries) => entries,
        Value::Object(mut fields) => {
            let found = ["data", "items", "generations"].iter().find_map(|name| fields.remove(*name))?;
            if let Value::Array(entries) = found { entries } else { return None }
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => return None,
    };
    let entry = |entry: Value| {
        let notice = Notice::read(&entry).ok()?;
        let Value::Object(fields) = entry else { return None };
        Some(Entry { notice, fields })
    };
    Some(entries.into_iter().take(READ_MAX).filter_map(entry).collect())
}

/// Whether an entry can be one of that family: in the family's own list all are, in another's only those whose model says so.
pub fn tells_of(list: &Family, family: &Family, entry: &Entry) -> bool {
    list.path == family.path || entry.text("model").is_some_and(|model| family_named(model) == Some(family.path))
}

/// The family that the name of a model belongs to, as sent or as composed for O3 video (provider.md section 3).
fn family_named(model: &str) -> Option<&'static str> {
    if model.starts_with("kling-o3-video-") {
        return Some("kling/o3-video");
    }
    FAMILIES.iter().find(|family| family.model(model).is_some()).map(|family| family.path)
}

impl Entry {
    fn text(&self, field: &str) -> Option<&str> {
        self.fields.get(field)?.as_str().map(str::trim).filter(|text| !text.is_empty())
    }

    /// When it was bought, where the list says so. A time without a zone is in UTC, or fits nothing.
    fn created_at(&self) -> Option<Time> {
        let text = self.text("created_at")?;
        Time::parse(text).or_else(|_| Time::parse(&format!("{}Z", text.replacen(' ', "T", 1)))).ok()
    }

    fn is_running(&self) -> bool {
        matches!(self.notice.word, Word::Pending | Word::Processing)
    }
}

impl LostPurchase {
    /// Whether an entry of the list of `list` is what was asked for.
    fn fits(&self, list: &Family, entry: &Entry) -> bool {
        let request = &self.generation.request;
        let Some(prompt) = request.prompt.as_deref() else { return false };
        if planted::is(planted::Fault::ListMatchedByPrompt) {
            return entry.text("prompt") == Some(prompt.trim());
        }
        entry.text("prompt") == Some(prompt.trim())
            && tells_of(list, self.generation.family, entry)
            && self.fits_model(entry)
            && fits(request.duration_seconds.map(Value::from).as_ref(), entry.fields.get("duration"))
            && self.options.iter().all(|(name, asked)| fits(Some(asked), entry.fields.get(name)))
    }

    /// The model must not be another one. A name nobody knows says nothing.
    fn fits_model(&self, entry: &Entry) -> bool {
        let Some(told) = entry.text("model") else { return true };
        let asked = self.generation.request.model.as_deref();
        let composed = shape::model(&self.generation);
        asked == Some(told) || composed.as_deref() == Some(told) || family_named(told).is_none()
    }

    /// Whether it was bought when this purchase was sent, for certain: the list says when, or it was not there shortly before, or it runs,
    /// which none does for longer than the provider's limit.
    fn is_of_its_time(&self, entry: &Entry, seen: Seen, rules: &Rules, now: Time) -> bool {
        let until = self.answered_at.unwrap_or(now) + CLOCKS_APART;
        if let Some(created_at) = entry.created_at() {
            return self.sent_at - CLOCKS_APART <= created_at && created_at <= until;
        }
        match seen.absent_at {
            // It came into the list later.
            Some(absent_at) if absent_at > until => false,
            Some(absent_at) if absent_at >= self.sent_at - CLOCKS_APART => true,
            // What came into the list while nobody read it may be of any time.
            Some(_) | None => entry.is_running() && now.since(self.sent_at) < rules.limit(&self.generation),
        }
    }

    /// Whether it can have been bought then at all.
    fn may_be_of_its_time(&self, entry: &Entry, seen: Seen, now: Time) -> bool {
        let until = self.answered_at.unwrap_or(now) + CLOCKS_FAR_APART;
        match entry.created_at() {
            Some(created_at) => self.sent_at - CLOCKS_FAR_APART <= created_at && created_at <= until,
            None => {
                seen.entry_since.is_none_or(|since| since >= self.sent_at)
                    && seen.absent_at.is_none_or(|absent_at| absent_at <= until)
            }
        }
    }

    /// Looks for it in the list of `list`. `unknown`: the entries that are on record under no generation, with their places and since when
    /// they were seen; `rivals`: other purchases that ask for the same and whose id is not known.
    pub fn find(
        &self,
        list: &Family,
        unknown: &[(usize, &Entry, Seen)],
        rivals: usize,
        rules: &Rules,
        now: Time,
    ) -> Match {
        let fitting: Vec<_> = unknown
            .iter()
            .filter(|(_, entry, seen)| self.fits(list, entry) && self.may_be_of_its_time(entry, *seen, now))
            .collect();
        match fitting.as_slice() {
            [] => Match::Absent,
            [.., (place, ..)] if planted::is(planted::Fault::ListMatchedByPrompt) => Match::One(*place),
            [(place, entry, seen)] if rivals == 0 && self.is_of_its_time(entry, *seen, rules, now) => {
                Match::One(*place)
            }
            several => Match::Unsure(several.iter().map(|(place, ..)| *place).collect()),
        }
    }

    /// What was bought before this cannot be taken for it.
    pub fn rivals_since(&self, rules: &Rules) -> Time {
        self.sent_at - rules.limit(&self.generation) - CLOCKS_FAR_APART
    }
}

/// Whether what is told is what was asked for; what one of them leaves open says nothing.
fn fits(asked: Option<&Value>, told: Option<&Value>) -> bool {
    let plain = |value: &Value| match value {
        Value::String(text) => Some(text.trim().to_owned()),
        Value::Number(number) => Some(number.as_f64().map_or_else(|| number.to_string(), |number| number.to_string())),
        Value::Bool(is) => Some(is.to_string()),
        Value::Null | Value::Array(_) | Value::Object(_) => None,
    };
    match (asked.and_then(plain), told.and_then(plain)) {
        (Some(asked), Some(told)) => asked == told,
        _ => true,
    }
}

/// The ids of a list's entries.
pub fn ids(entries: &[Entry]) -> impl Iterator<Item = &ProviderId> {
    entries.iter().map(|entry| &entry.notice.provider_id)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::domain::decision::tests::rules;
    use crate::domain::generation::{Request, State, Via};
    use crate::domain::id::GenerationId;
    use crate::domain::schedule::Confirm;

    const SENT: Time = Time::from_ms(1_795_428_000_000);

    fn purchase(path: &str) -> LostPurchase {
        let family = Family::of(path).unwrap();
        let request = Request {
            model: Some(if path == "veo" { "veo_3_fast" } else { "kling_o3_pro" }.to_owned()),
            duration_seconds: (path != "veo").then_some(10),
            prompt: Some("a boat".to_owned()),
        };
        let new = Generation::new(GenerationId::fresh(SENT), family, Via::Gateway, SENT);
        let generation = Generation { state: State::Unconfirmed, request, submitted_at: Some(SENT), ..new };
        let options = serde_json::from_value(json!({"aspect_ratio": "9:16", "seed": 7})).unwrap();
        LostPurchase { generation, options, sent_at: SENT, answered_at: Some(SENT + Duration::from_secs(5)) }
    }

    fn entry(value: &Value) -> Entry {
        let mut list = read_list(json!([value]).to_string().as_bytes()).unwrap();
        list.pop().unwrap_or_else(|| panic!("{value} cannot be read"))
    }

    fn find(purchase: &LostPurchase, list: &str, entries: &[Value], seen: Seen, rivals: usize) -> Match {
        let entries: Vec<_> = entries.iter().map(entry).collect();
        let unknown: Vec<_> = entries.iter().enumerate().map(|(place, entry)| (place, entry, seen)).collect();
        let now = SENT + Duration::from_secs(8);
        purchase.find(Family::of(list).unwrap(), &unknown, rivals, &rules(Confirm::Untrusted), now)
    }

    fn running() -> Value {
        json!({"generation_id": "p-1", "status": "pending", "prompt": "a boat", "video_url": null})
    }

    fn with(fields: &Value) -> Value {
        let mut entry = running();
        entry.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
        entry
    }

    #[test]
    fn a_list_is_a_bare_array_and_what_cannot_be_read_in_it_is_left_out() {
        let list = json!([running(), {"status": "pending"}, 7, {"task_uuid": "t", "status": "completed"}]);
        assert_eq!(read_list(list.to_string().as_bytes()).unwrap().len(), 2);
        let wrapped = json!({"data": [running()], "has_more": false});
        assert_eq!(read_list(wrapped.to_string().as_bytes()).unwrap().len(), 1);
        for none in ["", "{}", "7", r#"{"data": 7}"#, r#"{"detail":"Not Found"}"#] {
            assert_eq!(read_list(none.as_bytes()), None, "{none}");
        }
        assert_eq!(read_list(b"[]").unwrap(), []);
    }

    #[test]
    fn the_lists_that_may_tell_of_a_family() {
        let of = |path: &str| lists_of(Family::of(path).unwrap()).map(|list| list.path).collect::<Vec<_>>();
        assert_eq!(of("kling/o3-video"), ["kling/o3-video", "kling"]);
        assert_eq!(of("veo"), ["veo"]);
    }

    #[test]
    fn only_what_fits_in_everything_that_is_told_is_the_purchase() {
        let (own, now) = ("kling/o3-video", Seen::default());
        let found = |fields: Value| find(&purchase(own), own, &[with(&fields)], now, 0);
        for fits in [
            json!({}),
            json!({"model": "kling-o3-video-10s-pro"}),
            json!({"model": "kling_o3_pro", "duration": "10"}),
            json!({"model": "v7-internal", "duration": 10, "aspect_ratio": "9:16", "seed": "7"}),
            json!({"created_at": "2026-11-23T10:00:01Z"}),
            json!({"created_at": "2026-11-23 10:00:01.5"}),
            json!({"created_at": "2026-11-23T10:00:01Z", "status": "completed", "video_url": "https://x/v.mp4"}),
        ] {
            assert_eq!(found(fits.clone()), Match::One(0), "{fits}");
        }
        for other in [
            json!({"prompt": "a kite"}),
            json!({"prompt": null}),
            json!({"model": "kling-o3-video-5s-pro"}),
            json!({"model": "kling-o3-video-10s"}),
            json!({"model": "kling_2.1"}),
            json!({"duration": 5}),
            json!({"aspect_ratio": "1:1"}),
            json!({"seed": 8}),
            json!({"created_at": "2026-11-23T09:49:00Z"}),
            json!({"created_at": "2026-11-23T10:11:00Z"}),
        ] {
            assert_eq!(found(other.clone()), Match::Absent, "{other}");
        }
        for near in ["2026-11-23T09:57:00Z", "2026-11-23T10:09:00Z"] {
            assert_eq!(found(json!({"created_at": near})), Match::Unsure(vec![0]), "{near}");
        }
    }

    #[test]
    fn without_a_time_it_must_run_or_have_been_absent_before() {
        let own = "kling/o3-video";
        let done = with(&json!({"status": "completed", "video_url": "https://x/v.mp4"}));
        let find = |entry: &Value, seen| find(&purchase(own), own, std::slice::from_ref(entry), seen, 0);
        let (early, before) = (Some(SENT - Duration::from_hours(1)), Some(SENT - Duration::from_mins(1)));
        let after = |minutes| Some(SENT + Duration::from_mins(minutes));
        let seen = |absent_at, entry_since| Seen { absent_at, entry_since };
        assert_eq!(find(&done, seen(None, None)), Match::Unsure(vec![0]), "it may be of yesterday");
        assert_eq!(find(&done, seen(early, None)), Match::Unsure(vec![0]), "nobody read the list in that hour");
        assert_eq!(find(&running(), seen(early, None)), Match::One(0));
        for is_at in [before, after(0), after(2)] {
            assert_eq!(find(&done, seen(is_at, None)), Match::One(0), "it was not there shortly before");
            assert_eq!(find(&done, seen(is_at, after(1))), Match::One(0));
        }
        for entry in [done.clone(), running()] {
            assert_eq!(find(&entry, seen(early, before)), Match::Absent, "it was there before");
            assert_eq!(find(&entry, seen(after(3), None)), Match::Unsure(vec![0]), "it came later");
            assert_eq!(find(&entry, seen(after(11), None)), Match::Absent, "it came much later");
        }
        assert_eq!(find(&running(), seen(None, None)), Match::One(0), "none runs for longer than the limit");
        let old = LostPurchase { sent_at: SENT - Duration::from_hours(1), ..purchase(own) };
        let unknown = [entry(&running())];
        let unknown: Vec<_> = unknown.iter().enumerate().map(|(n, entry)| (n, entry, Seen::default())).collect();
        let found = old.find(old.generation.family, &unknown, 0, &rules(Confirm::Untrusted), SENT);
        assert_eq!(found, Match::Unsure(vec![0]), "what runs now was bought later");
    }

    #[test]
    fn two_that_fit_or_two_that_look_for_it_are_a_persons() {
        let own = "kling/o3-video";
        let twin = with(&json!({"generation_id": "p-2"}));
        let find = |entries: &[Value], rivals| find(&purchase(own), own, entries, Seen::default(), rivals);
        assert_eq!(find(&[running(), with(&json!({"prompt": "x"})), twin], 0), Match::Unsure(vec![0, 2]));
        assert_eq!(find(&[running()], 1), Match::Unsure(vec![0]));
    }

    #[test]
    fn in_the_list_of_another_family_the_model_must_say_so() {
        let find = |fields: Value| find(&purchase("kling/o3-video"), "kling", &[with(&fields)], Seen::default(), 0);
        assert_eq!(find(json!({})), Match::Absent);
        assert_eq!(find(json!({"model": "kling_2.1"})), Match::Absent);
        assert_eq!(find(json!({"model": "kling-o3-video-10s-pro"})), Match::One(0));
        assert_eq!(find(json!({"model": "kling_o3_pro"})), Match::One(0));
    }

    #[test]
    fn without_a_prompt_nothing_is_found() {
        let mut nameless = purchase("veo");
        nameless.generation.request.prompt = None;
        assert_eq!(find(&nameless, "veo", &[with(&json!({"prompt": ""}))], Seen::default(), 0), Match::Absent);
    }
}
