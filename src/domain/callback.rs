//! Callback URL tokens: the provider does not sign its webhooks, so the URL itself is the credential.
//!
//! Mints and verifies; the only place that knows the text under the MAC. Never logs a token. Called by `flow/` and `http/`.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;

use super::family::Family;
use super::id::GenerationId;
use crate::planted;

/// What a token names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reference {
    /// One generation: minted before its purchase.
    Generation(GenerationId),
    /// Any generation of the family: one URL that people put into their code.
    Standing,
}

impl std::fmt::Display for Reference {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Generation(id) => id.fmt(f),
            Self::Standing => f.write_str(STANDING),
        }
    }
}

const STANDING: &str = "any";

/// The keys of callback URLs: the first signs, all are accepted.
#[derive(Clone)]
pub struct CallbackKeys(Vec<Hmac<Sha256>>);

impl std::fmt::Debug for CallbackKeys {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "CallbackKeys({})", self.0.len())
    }
}

impl CallbackKeys {
    /// Keys of any length, in order of preference.
    pub fn new<'a>(secrets: impl IntoIterator<Item = &'a str>) -> Self {
        // HMAC takes keys of every length, so no secret can be refused here.
        Self(secrets.into_iter().filter_map(|secret| Hmac::new_from_slice(secret.as_bytes()).ok()).collect())
    }

    /// The token for one reference: `{reference}.{mac}`. `None` when there is no key to sign with.
    pub fn mint(&self, family: &Family, reference: Reference) -> Option<String> {
        let tag = tag(self.0.first()?, family, reference).finalize().into_bytes();
        Some(format!("{reference}.{}", URL_SAFE_NO_PAD.encode(tag)))
    }

    /// The reference that an authentic token of this family names; `None` for everything else. Compares in constant time.
    pub fn verify(&self, family: &Family, token: &str) -> Option<Reference> {
        let (reference, mac) = token.split_once('.')?;
        if planted::is(planted::Fault::ForgedAccepted) {
            return GenerationId::parse(reference).ok().map(Reference::Generation);
        }
        let reference = match reference {
            STANDING => Reference::Standing,
            id => Reference::Generation(GenerationId::parse(id).ok()?),
        };
        let mac = URL_SAFE_NO_PAD.decode(mac).ok()?;
        let authentic = self.0.iter().any(|key| tag(key, family, reference).verify_slice(&mac).is_ok());
        authentic.then_some(reference)
    }
}

/// The MAC over a versioned text that holds the family and the reference. Neither can hold a line feed.
fn tag(key: &Hmac<Sha256>, family: &Family, reference: Reference) -> Hmac<Sha256> {
    let text = format!("recoup callback v1\n{}\n{reference}", family.path);
    key.clone().chain_update(text.as_bytes())
}

/// The address the provider is to call.
pub fn callback_url(public_url: &str, family: &Family, token: &str) -> String {
    format!("{}/webhooks/{}/{token}", public_url.trim_end_matches('/'), family.path)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::domain::family::FAMILIES;
    use crate::domain::time::Time;

    fn family() -> &'static Family {
        &FAMILIES[0]
    }

    fn keys() -> CallbackKeys {
        CallbackKeys::new(["a first secret of some length", "an older secret of some length"])
    }

    #[test]
    fn a_token_names_what_it_was_minted_for() {
        let id = GenerationId::fresh(Time::from_ms(1_763_900_000_000));
        for reference in [Reference::Generation(id), Reference::Standing] {
            let token = keys().mint(family(), reference).unwrap();
            assert_eq!(keys().verify(family(), &token), Some(reference));
        }
    }

    #[test]
    fn keys_are_counted_and_not_shown() {
        assert_eq!(format!("{:?}", keys()), "CallbackKeys(2)");
        assert_eq!(CallbackKeys::new([]).mint(family(), Reference::Standing), None);
    }

    #[test]
    fn what_is_planted_takes_a_forged_token() {
        let forged = format!("{}.x", GenerationId::from_bytes(&[7; 16]).unwrap());
        assert_eq!(keys().verify(family(), &forged), None);
        planted::plant(Some(planted::Fault::ForgedAccepted));
        assert_eq!(keys().verify(family(), &forged), GenerationId::from_bytes(&[7; 16]).map(Reference::Generation));
        planted::plant(None);
    }

    #[test]
    fn the_url_has_family_and_token_however_the_public_url_ends() {
        for public in ["https://recoup.example", "https://recoup.example/"] {
            let url = callback_url(public, family(), "any.mac");
            assert_eq!(url, "https://recoup.example/webhooks/kling/o3-video/any.mac");
        }
    }

    #[test]
    fn a_token_for_another_family_is_worth_nothing() {
        let token = keys().mint(family(), Reference::Standing).unwrap();
        let other = Family { path: "kling/o3-photo", ..*family() };
        assert_eq!(keys().verify(&other, &token), None);
    }

    #[test]
    fn old_keys_are_accepted_and_unknown_ones_are_not() {
        let old = CallbackKeys::new(["an older secret of some length"]);
        let token = old.mint(family(), Reference::Standing).unwrap();
        assert_eq!(keys().verify(family(), &token), Some(Reference::Standing));
        let strange = CallbackKeys::new(["a secret nobody here knows"]);
        assert_eq!(strange.verify(family(), &token), None);
        assert_eq!(CallbackKeys::new([]).verify(family(), &token), None);
    }

    #[test]
    fn every_one_bit_change_of_a_token_is_refused() {
        let id = GenerationId::fresh(Time::from_ms(1_763_900_000_000));
        for reference in [Reference::Generation(id), Reference::Standing] {
            let token = keys().mint(family(), reference).unwrap();
            for bit in 0..token.len() * 8 {
                let mut bytes = token.clone().into_bytes();
                bytes[bit / 8] ^= 1 << (bit % 8);
                if let Ok(changed) = String::from_utf8(bytes) {
                    assert_eq!(keys().verify(family(), &changed), None, "bit {bit}: {changed}");
                }
            }
        }
    }

    proptest! {
        #[test]
        fn no_other_text_is_accepted(text in "\\PC{0,120}") {
            prop_assert_eq!(keys().verify(family(), &text), None);
        }

        #[test]
        fn a_shortened_token_is_refused(cut in 0usize..43) {
            let token = keys().mint(family(), Reference::Standing).unwrap();
            prop_assert_eq!(keys().verify(family(), &token[..4 + cut]), None);
        }
    }
}
