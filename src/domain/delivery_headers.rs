//! The headers of a delivery as they are kept: few, short, and nothing that could be used to get in.
//!
//! Says which are kept. Reads no connection and stores nothing.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::words::words;

/// The header in which the provider's client looks for a signature (provider.md 13).
pub const SIGNATURE: &str = "x-runblob-signature";
const CONTENT_TYPE: &str = "content-type";

/// Headers kept of one delivery.
const COUNT_MAX: usize = 32;
/// Their names and values together, in bytes.
const BYTES_MAX: usize = 4_096;

/// Of these only the next hop is told, or they say what stands elsewhere.
const NOT_KEPT: [&str; 12] = [
    "connection",
    "content-length",
    "expect",
    "host",
    "keep-alive",
    "proxy-connection",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
    "accept-encoding",
    "content-encoding",
];

/// What stands in the name of a header that lets somebody in.
const CREDENTIALS: [&str; 8] = ["authoriz", "authentic", "cookie", "api-key", "apikey", "token", "secret", "assertion"];

words! {
    /// What is known of the signature of a delivery.
    Signature {
        /// There is one, and no secret to verify it with.
        Unchecked = "unchecked",
        /// It is the provider's.
        Verified = "verified",
    }
}

/// The headers kept of a delivery: name in lower case, and value; several of one name joined by a comma.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(transparent)]
pub struct DeliveryHeaders(pub BTreeMap<String, String>);

impl DeliveryHeaders {
    /// Those of `headers` that are kept. `token`: of the URL it came by; what holds it, or its MAC alone, is left out, as is every
    /// credential. Signature and content type come first, so that no flood of others can push them out.
    pub fn kept<'h>(headers: impl IntoIterator<Item = (&'h str, &'h [u8])>, token: &str) -> Self {
        let mac = token.rsplit_once('.').map_or(token, |(_, mac)| mac);
        let mut wanted: Vec<(&str, String)> = headers
            .into_iter()
            .filter(|(name, _)| !NOT_KEPT.contains(name) && !CREDENTIALS.iter().any(|word| name.contains(word)))
            .map(|(name, value)| (name, String::from_utf8_lossy(value).into_owned()))
            .filter(|(_, value)| mac.is_empty() || !value.contains(mac))
            .collect();
        wanted.sort_by_key(|(name, _)| ![SIGNATURE, CONTENT_TYPE].contains(name));
        let (mut kept, mut bytes) = (BTreeMap::<String, String>::new(), 0);
        for (name, value) in wanted {
            bytes += name.len() + value.len() + ", ".len();
            if bytes > BYTES_MAX {
                break;
            }
            if let Some(before) = kept.get_mut(name) {
                before.push_str(", ");
                before.push_str(&value);
            } else if kept.len() < COUNT_MAX {
                kept.insert(name.to_owned(), value);
            }
        }
        Self(kept)
    }

    /// Without what proxies in front of us add: that is not the provider's business.
    #[must_use]
    pub fn without_proxies(mut self) -> Self {
        self.0.retain(|name, _| {
            !name.starts_with("x-forwarded-") && !["forwarded", "via", "x-real-ip"].contains(&name.as_str())
        });
        self
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The signature as it came.
    pub fn signature(&self) -> Option<&str> {
        self.0.get(SIGNATURE).map(String::as_str)
    }

    /// The content type as it came.
    pub fn content_type(&self) -> Option<&str> {
        self.0.get(CONTENT_TYPE).map(String::as_str)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kept(headers: &[(&str, &str)]) -> Vec<(String, String)> {
        let headers = headers.iter().map(|(name, value)| (*name, value.as_bytes()));
        DeliveryHeaders::kept(headers, "gen_0199.Mac-of_it").0.into_iter().collect()
    }

    #[test]
    fn what_says_something_is_kept_and_what_lets_in_is_not() {
        let kept = kept(&[
            ("host", "recoup.example"),
            ("content-type", "application/json"),
            ("authorization", "Bearer x"),
            ("proxy-authorization", "Basic x"),
            ("cookie", "a=b"),
            ("x-api-key", "k"),
            ("x-amz-security-token", "k"),
            ("x-original-uri", "/webhooks/kling/gen_0199.Mac-of_it"),
            ("referer", "https://x/?m=Mac-of_it"),
            ("connection", "close"),
            ("x-attempt", "1"),
            ("x-attempt", "2"),
            ("x-runblob-signature", "ab12"),
        ]);
        let names: Vec<_> = kept.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        let expected = [("content-type", "application/json"), ("x-attempt", "1, 2"), ("x-runblob-signature", "ab12")];
        assert_eq!(names, expected);
    }

    #[test]
    fn no_flood_pushes_the_signature_out() {
        let long = "x".repeat(1_000);
        let names: Vec<String> = (0..100).map(|n| format!("x-{n:03}")).collect();
        let mut many: Vec<(&str, &str)> = names.iter().map(|name| (name.as_str(), "1")).collect();
        many.push((SIGNATURE, "ab12"));
        let kept_of_many = kept(&many);
        assert_eq!(kept_of_many.len(), COUNT_MAX);
        assert!(kept_of_many.contains(&(SIGNATURE.to_owned(), "ab12".to_owned())));
        let mut large: Vec<(&str, &str)> = names.iter().map(|name| (name.as_str(), long.as_str())).collect();
        large.push((SIGNATURE, "ab12"));
        let kept_of_large = kept(&large);
        let bytes: usize = kept_of_large.iter().map(|(name, value)| name.len() + value.len()).sum();
        assert!(bytes <= BYTES_MAX && kept_of_large.len() == 5, "{bytes} in {}", kept_of_large.len());
        assert!(kept_of_large.contains(&(SIGNATURE.to_owned(), "ab12".to_owned())));
    }
}
