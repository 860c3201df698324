//! The provider's families and models as data: paths, field names, expected times, limits.
//!
//! Adding a family is adding a row to [`FAMILIES`]. Rows hold what the provider's documentation says and nothing else;
//! the section of provider.md stands beside each. No rule lives here.

mod table;

use std::time::Duration;

pub use table::FAMILIES;

use super::words::words;

words! {
    /// What a family makes.
    Medium {
        /// A clip.
        Video = "video",
        /// A still picture.
        Image = "image",
    }
}

/// How a request of this family writes its duration (provider.md sections 2 and 10).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DurationForm {
    /// A string: `"5"`.
    Text,
    /// A number: `5`.
    Integer,
    /// The family has no duration.
    Absent,
}

/// The usual time from submission to outcome.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Expected {
    /// Hardly ever sooner.
    pub from: Duration,
    /// Usually done by then.
    pub to: Duration,
}

/// One duration a model offers, and how long that takes to make.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Offer {
    /// Length of the clip in seconds.
    pub seconds: u32,
    /// Time to make it.
    pub expected: Expected,
}

/// One model of a family.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Model {
    /// The value of the request's `model` field; for a family without that field the family's own word for it.
    pub name: &'static str,
    /// What the result looks like, where documented: `720p`, `1080p`.
    pub resolution: Option<&'static str>,
    /// Durations on offer; empty for pictures or where none are documented.
    pub offers: &'static [Offer],
    /// From its quickest offer to its slowest; for a model without durations, the time to make one.
    pub expected: Expected,
    /// Price relative to the family's default model, in words: `1`, `about 2`. `None` where nothing is documented.
    pub relative_cost: Option<&'static str>,
    /// When to use it, in a sentence.
    pub use_for: &'static str,
}

/// One family of the provider: what stands between `/v1/` and `/generate`.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Family {
    /// The path segment, possibly with a slash: `kling/o3-video`.
    pub path: &'static str,
    /// The name for people: `Kling O3 video`.
    pub title: &'static str,
    /// The model the provider takes when a request names none, where that is documented or its own client says so.
    pub default_model: Option<&'static str>,
    /// What it makes.
    pub medium: Medium,
    /// The field of submit answers, webhooks and status answers that holds the provider's id.
    pub id_field: &'static str,
    /// Where the result's URL is: `video_url`, or `output.video_urls[0]`.
    pub result_field: &'static str,
    /// Where the webhook carries the reason of a failure: `message`, `error_message`, `error`.
    pub reason_field: &'static str,
    /// Whether the documented status answer carries the reason too (provider.md 9.6).
    pub reason_in_status: bool,
    /// Whether the documented submit answer carries a price.
    pub price_in_answer: bool,
    /// How requests write the duration.
    pub duration_form: DurationForm,
    /// The duration the provider takes when a request names none, in seconds; `None` where it has none or says nothing.
    pub default_duration: Option<u32>,
    /// The models; for a family without a `model` field one row in the family's own word.
    pub models: &'static [Model],
    /// The provider fails a generation by itself after this; `None` where undocumented (the configured limit applies).
    pub hard_limit: Option<Duration>,
    /// Pauses between the attempts of one webhook (provider.md 9.4 and section 10).
    pub webhook_pauses: &'static [Duration],
}

/// Its path says it all.
impl std::fmt::Debug for Family {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Family({})", self.path)
    }
}

impl Family {
    /// The number it is stored as: its place in the table, from 1 on.
    pub fn code(&self) -> u8 {
        let place = FAMILIES.iter().position(|family| family.path == self.path);
        place.and_then(|place| u8::try_from(place + 1).ok()).unwrap_or(0)
    }

    /// The family stored as that number.
    pub fn of_code(code: u8) -> Option<&'static Self> {
        FAMILIES.get(usize::from(code).checked_sub(1)?)
    }

    /// The family of that path; `None` for a path the provider does not document.
    pub fn of(path: &str) -> Option<&'static Self> {
        FAMILIES.iter().find(|family| family.path == path)
    }

    /// The model of that name.
    pub fn model(&self, name: &str) -> Option<&'static Model> {
        self.models.iter().find(|model| model.name == name)
    }

    /// The one model of a family whose requests need not name any.
    pub fn only_model(&self) -> Option<&'static Model> {
        match self.models {
            [model] => Some(model),
            _ => None,
        }
    }

    /// The documented time for a model and duration; where either is unknown, the family's longest (contract section 9).
    pub fn expected(&self, model: Option<&str>, seconds: Option<u32>) -> Expected {
        let known = model.and_then(|name| self.model(name)).and_then(|model| {
            if model.offers.is_empty() {
                return Some(model.expected);
            }
            model.offers.iter().find(|offer| Some(offer.seconds) == seconds).map(|offer| offer.expected)
        });
        known.unwrap_or_else(|| self.longest())
    }

    /// The model and duration that take longest.
    fn longest(&self) -> Expected {
        self.models.iter().map(|model| model.expected).max_by_key(|expected| expected.to).unwrap_or(UNDOCUMENTED)
    }
}

/// For a family of which no time is documented (provider.md section 10.7): the shortest and longest of all the others.
const UNDOCUMENTED: Expected = seconds(60, 900);

const fn seconds(from: u64, to: u64) -> Expected {
    Expected { from: Duration::from_secs(from), to: Duration::from_secs(to) }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn the_table_makes_sense() {
        let mut paths = HashSet::new();
        assert_eq!(FAMILIES[0].path, "kling/o3-video");
        for family in FAMILIES {
            assert!(paths.insert(family.path), "{} stands twice", family.path);
            assert_eq!(Family::of(family.path), Some(family));
            assert_eq!(Family::of_code(family.code()), Some(family));
            assert!(!family.models.is_empty(), "{} has no model", family.path);
            assert!(!family.webhook_pauses.is_empty(), "{}", family.path);
            for model in family.models {
                assert!(model.expected.from <= model.expected.to, "{}", model.name);
                assert_eq!(family.model(model.name), Some(model), "{} stands twice", model.name);
                for offer in model.offers {
                    assert!(offer.expected.from <= offer.expected.to, "{}", model.name);
                    assert!(offer.expected.to <= model.expected.to, "{}", model.name);
                }
            }
            if let Some(seconds) = family.default_duration {
                let offers = family
                    .default_model
                    .and_then(|name| family.model(name))
                    .map_or([].as_slice(), |model| model.offers);
                assert!(offers.iter().any(|offer| offer.seconds == seconds), "{}", family.path);
            }
        }
    }

    #[test]
    fn its_path_says_it_all() {
        assert_eq!(format!("{:?}", FAMILIES[0]), "Family(kling/o3-video)");
        assert_eq!((FAMILIES[0].code(), FAMILIES[1].code()), (1, 2));
        assert_eq!((Family::of_code(0), Family::of_code(200), Family::of("kling/o4")), (None, None, None));
        assert_eq!(Family { path: "kling/o4", ..FAMILIES[0] }.code(), 0, "not in the table");
    }

    /// provider.md section 13 and 10.1: what a request may name, so that its times are its own.
    #[test]
    fn the_table_knows_every_model_of_the_providers_own_client() {
        let kling = "1.6 1.6_pro 2.1 2.1_pro 2.1_master 2.5_turbo 2.5_turbo_pro 2.6 2.6_motion 2.6_motion_pro 3 3_pro 3_motion \
                     3_motion_pro";
        let veo = "fast fast_hd fast_4k quality quality_hd quality_4k";
        for (path, prefix, names, default) in [
            ("kling", "kling_", kling, "kling_2.5_turbo"),
            ("veo", "veo_3_", veo, "veo_3_fast"),
            ("gemini", "", "standard pro v2", "standard"),
            ("chatgpt-images", "", "gpt-5-2", "gpt-5-2"),
            ("kling/o1-video", "", "kling_o1_video", "kling_o1_video"),
            ("kling/o1-photo", "", "kling_o1_photo", "kling_o1_photo"),
            ("kling/o3-photo", "", "kling_o3_photo", "kling_o3_photo"),
        ] {
            let family = Family::of(path).unwrap();
            for name in names.split_whitespace() {
                assert!(family.model(&format!("{prefix}{name}")).is_some(), "{path} {name}");
            }
            assert_eq!(family.default_model, Some(default), "{path}");
            assert!(family.model(default).is_some());
        }
        let lengths = |path, model| {
            let offers = Family::of(path).unwrap().model(model).unwrap().offers;
            (offers.first().map(|offer| offer.seconds), offers.last().map(|offer| offer.seconds), offers.len())
        };
        assert_eq!(lengths("kling", "kling_2.6"), (Some(5), Some(10), 2));
        assert_eq!(lengths("kling", "kling_3"), (Some(3), Some(15), 13));
        assert_eq!(lengths("kling/o1-video", "kling_o1_video"), (Some(3), Some(10), 8));
        assert_eq!(["kling", "kling/o1-video"].map(|path| Family::of(path).unwrap().default_duration), [Some(5); 2]);
    }

    #[test]
    fn o3_video_is_expected_as_the_provider_says() {
        let o3 = Family::of("kling/o3-video").unwrap();
        for (model, duration, from, to) in [
            ("kling_o3", 5, 120, 180),
            ("kling_o3", 10, 180, 300),
            ("kling_o3", 15, 300, 420),
            ("kling_o3_pro", 5, 156, 270),
            ("kling_o3_pro", 10, 234, 450),
            ("kling_o3_pro", 15, 390, 630),
        ] {
            assert_eq!(o3.expected(Some(model), Some(duration)), seconds(from, to), "{model} {duration}");
        }
        for (model, duration) in
            [(None, None), (Some("kling_o3"), None), (Some("other"), Some(5)), (Some("kling_o3"), Some(7))]
        {
            assert_eq!(o3.expected(model, duration).to, Duration::from_secs(630), "{model:?} {duration:?}");
        }
    }
}
