//! Ids: our own, sortable by time, and the provider's, opaque.
//!
//! Outside they are text with a prefix, inside 16 bytes. Parsing is strict: one id has exactly one spelling.

use std::fmt;

use uuid::Uuid;

use super::time::Time;

/// The text was no id of the expected kind.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("must be {prefix}_ followed by 32 lower-case hexadecimal digits")]
pub struct NotAnId {
    prefix: &'static str,
}

macro_rules! own_id {
    ($(#[doc = $doc:literal])* $name:ident, $prefix:literal) => {
        $(#[doc = $doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(Uuid);

        impl $name {
            /// A fresh id, later than every earlier one of this process.
            pub fn fresh(now: Time) -> Self {
                Self(fresh_uuid(now))
            }

            /// The 16 bytes it is stored as.
            pub fn as_bytes(&self) -> &[u8; 16] {
                self.0.as_bytes()
            }

            /// From the 16 bytes it is stored as; `None` for any other length.
            pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
                Uuid::from_slice(bytes).ok().map(Self)
            }

            /// Reads the text form.
            ///
            /// # Errors
            /// [`NotAnId`] for anything else, another spelling of the same number included.
            pub fn parse(text: &str) -> Result<Self, NotAnId> {
                parse_hex(text.strip_prefix(concat!($prefix, "_")))
                    .map(Self)
                    .ok_or(NotAnId { prefix: $prefix })
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!($prefix, "_{}"), self.0.simple())
            }
        }

        impl serde::Serialize for $name {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }

        impl utoipa::PartialSchema for $name {
            fn schema() -> utoipa::openapi::RefOr<utoipa::openapi::Schema> {
                let (pattern, example) = ("^PREFIX_[0-9a-f]{32}$", "PREFIX_0199d4c2b7a07f3e9b1c2a3d4e5f6071");
                let of_this_kind = |text: &str| text.replace("PREFIX", $prefix);
                super::schema::text(concat!($($doc,)*), &of_this_kind(pattern), &of_this_kind(example))
            }
        }

        impl utoipa::ToSchema for $name {}
    };
}

own_id!(
    /// Our id of a generation: `gen_` and a UUIDv7.
    GenerationId,
    "gen"
);
own_id!(
    /// The id of one received webhook.
    DeliveryId,
    "dlv"
);
own_id!(
    /// The id of one read of the provider's status endpoint.
    CheckId,
    "chk"
);
own_id!(
    /// The id of one event told to the user's systems; the same on every retry.
    EventId,
    "evt"
);

thread_local! {
    static SEEDED: std::cell::RefCell<Option<Seeded>> = const { std::cell::RefCell::new(None) };
}

/// Ids by a seed: for the simulator, where one seed is one history.
struct Seeded {
    chance: fastrand::Rng,
    given: u32,
}

impl Seeded {
    fn uuid(&mut self, now: Time) -> Uuid {
        self.given += 1;
        let mut random = [0; 10];
        random[..4].copy_from_slice(&self.given.to_be_bytes());
        self.chance.fill(&mut random[4..]);
        uuid::Builder::from_unix_timestamp_millis(u64::try_from(now.as_ms()).unwrap_or(0), &random).into_uuid()
    }
}

/// From now on this thread's ids follow from the seed alone.
pub fn seed(seed: u64) {
    SEEDED.set(Some(Seeded { chance: fastrand::Rng::with_seed(seed), given: 0 }));
}

/// A UUIDv7 of the given time. Within a process ids keep their order even when the clock stands still or runs backwards.
fn fresh_uuid(now: Time) -> Uuid {
    static CONTEXT: std::sync::Mutex<uuid::ContextV7> = std::sync::Mutex::new(uuid::ContextV7::new());
    if let Some(uuid) = SEEDED.with_borrow_mut(|seeded| seeded.as_mut().map(|chance| chance.uuid(now))) {
        return uuid;
    }
    uuid_of(&CONTEXT, now)
}

fn uuid_of(context: &std::sync::Mutex<uuid::ContextV7>, now: Time) -> Uuid {
    let span = now.since(Time::from_ms(0));
    Uuid::new_v7(uuid::Timestamp::from_unix(context, span.as_secs(), span.subsec_nanos()))
}

fn parse_hex(hex: Option<&str>) -> Option<Uuid> {
    let hex = hex.filter(|hex| hex.len() == 32 && !hex.bytes().any(|byte| byte.is_ascii_uppercase()))?;
    Uuid::try_parse(hex).ok()
}

/// The provider's id of a generation: opaque text, 1 to 128 characters of `[A-Za-z0-9_-]` (contract section 1).
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ProviderId(String);

/// The text cannot be a provider's id.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("must be 1 to 128 characters of A-Z, a-z, 0-9, _ and -")]
pub struct NotAProviderId;

impl ProviderId {
    /// Takes the text as it is.
    ///
    /// # Errors
    /// [`NotAProviderId`] when it is empty, too long, or holds a character that is not allowed.
    pub fn parse(text: &str) -> Result<Self, NotAProviderId> {
        let allowed = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-';
        if (1..=128).contains(&text.len()) && text.bytes().all(allowed) {
            Ok(Self(text.to_owned()))
        } else {
            Err(NotAProviderId)
        }
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for ProviderId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl serde::Serialize for ProviderId {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

impl<'de> serde::Deserialize<'de> for ProviderId {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = <std::borrow::Cow<'de, str>>::deserialize(deserializer)?;
        Self::parse(&text).map_err(serde::de::Error::custom)
    }
}

impl utoipa::PartialSchema for ProviderId {
    fn schema() -> utoipa::openapi::RefOr<utoipa::openapi::Schema> {
        let about = "The provider's id of a generation: opaque text.";
        super::schema::text(about, "^[A-Za-z0-9_-]{1,128}$", "7b0e1f52-4c1d-4f0a-9a57-2d6f3c8e91aa")
    }
}

impl utoipa::ToSchema for ProviderId {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_has_exactly_one_spelling() {
        let id = GenerationId::fresh(Time::from_ms(1_763_900_000_000));
        let text = id.to_string();
        assert_eq!(GenerationId::parse(&text), Ok(id));
        assert!(text.starts_with("gen_") && text.len() == 36);
        assert!(GenerationId::parse(&text.to_uppercase().replace("GEN", "gen")).is_err());
        assert!(GenerationId::parse(&text.replace("gen_", "dlv_")).is_err());
        assert!(GenerationId::parse("gen_0199d4c2-b7a0-7f3e-9b1c-2a3d4e5f6071").is_err());
    }

    #[test]
    fn ids_sort_by_time_even_on_a_standing_clock() {
        let now = Time::from_ms(1_763_900_000_000);
        let ids: Vec<_> = (0..1_000).map(|_| GenerationId::fresh(now)).collect();
        assert!(ids.is_sorted());
    }

    #[test]
    fn an_id_holds_its_time_to_the_millisecond() {
        let context = std::sync::Mutex::new(uuid::ContextV7::new());
        for ms in [0, 1, 999, 1_000, 1_795_428_000_001, 1_795_428_000_999] {
            let bytes = *uuid_of(&context, Time::from_ms(ms)).as_bytes();
            assert_eq!(i64::from_be_bytes([0, 0, bytes[0], bytes[1], bytes[2], bytes[3], bytes[4], bytes[5]]), ms);
        }
        assert_eq!(uuid_of(&std::sync::Mutex::new(uuid::ContextV7::new()), Time::from_ms(-5)).as_bytes()[..6], [0; 6]);
    }

    #[test]
    fn of_one_seed_come_the_same_ids_in_the_order_they_are_given_in() {
        let ids = |chance: u64| {
            let taken = move || {
                seed(chance);
                (0..300).map(|_| GenerationId::fresh(Time::from_ms(1_000))).collect::<Vec<_>>()
            };
            // A thread of its own: the seed is the thread's.
            std::thread::spawn(taken).join().unwrap()
        };
        let of_seven = ids(7);
        assert!(of_seven.is_sorted() && of_seven.windows(2).all(|pair| pair[0] != pair[1]));
        assert_eq!(of_seven[0].as_bytes()[..6], [0, 0, 0, 0, 3, 232]);
        assert_eq!(ids(7), of_seven);
        assert_ne!(ids(8), of_seven);
    }

    #[test]
    fn ids_are_texts_in_json() {
        let id = ProviderId::parse("p-1").unwrap();
        assert_eq!((id.to_string(), serde_json::to_string(&id).unwrap()), ("p-1".to_owned(), "\"p-1\"".to_owned()));
        assert_eq!(serde_json::from_str::<ProviderId>("\"p-1\"").unwrap(), id);
        assert!(serde_json::from_str::<ProviderId>("\"a b\"").is_err());
        let own = GenerationId::from_bytes(&[7; 16]).unwrap();
        assert_eq!(serde_json::to_string(&own).unwrap(), "\"gen_07070707070707070707070707070707\"");
        assert_eq!(GenerationId::from_bytes(&[7; 15]), None);
    }

    #[test]
    fn provider_ids_are_bounded_and_plain() {
        for good in ["7b0e1f52-4c1d_Photo", "_", "-", "0", &"x".repeat(128)] {
            assert!(ProviderId::parse(good).is_ok(), "{good}");
        }
        for bad in ["", "a/b", "a b", "ä", "../x", &"x".repeat(129)] {
            assert_eq!(ProviderId::parse(bad), Err(NotAProviderId), "{bad}");
        }
    }
}
