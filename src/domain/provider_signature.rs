//! The provider's own signature of a webhook (provider.md 13): HMAC-SHA256 of the raw body, in hexadecimal.
//!
//! Whether every webhook is signed is not known: a missing signature is no wrong one. Never logs a secret.

use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;

/// What a webhook's signature is worth.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// There is none.
    Missing,
    /// There is one, and no secret to verify it with.
    Unchecked,
    /// It was made with one of the secrets.
    Right,
    /// It was made with none of them.
    Wrong,
}

/// The secrets that the provider signs with: one, or during a rotation several.
#[derive(Clone, Default)]
pub struct ProviderSecrets(Vec<Hmac<Sha256>>);

impl std::fmt::Debug for ProviderSecrets {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "ProviderSecrets({})", self.0.len())
    }
}

impl ProviderSecrets {
    /// Secrets of any length.
    pub fn new<'a>(secrets: impl IntoIterator<Item = &'a str>) -> Self {
        // HMAC takes keys of every length, so no secret can be refused here.
        Self(secrets.into_iter().filter_map(|secret| Hmac::new_from_slice(secret.as_bytes()).ok()).collect())
    }

    /// Judges the values of the signature header of a body; empty ones are none. One right value is enough: a proxy may add its own.
    /// Compares in constant time.
    pub fn judge<'v>(&self, body: &[u8], values: impl IntoIterator<Item = &'v [u8]>) -> Verdict {
        let values = values.into_iter().map(<[u8]>::trim_ascii).filter(|value| !value.is_empty());
        let values: Vec<&[u8]> = values.collect();
        if values.is_empty() {
            return Verdict::Missing;
        }
        if self.0.is_empty() {
            return Verdict::Unchecked;
        }
        let right = values
            .iter()
            .filter_map(|value| tag(value))
            .any(|tag| self.0.iter().any(|secret| secret.clone().chain_update(body).verify_slice(&tag).is_ok()));
        if right { Verdict::Right } else { Verdict::Wrong }
    }
}

/// The bytes that a value stands for: in hexadecimal of either case, `sha256=` before it or not.
fn tag(value: &[u8]) -> Option<Vec<u8>> {
    let digits = match value.split_at_checked(7) {
        Some((prefix, digits)) if prefix.eq_ignore_ascii_case(b"sha256=") => digits,
        Some(_) | None => value,
    };
    hex::decode(digits).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Made with Python: `hmac.new(b"whsec-of-the-dashboard", b'{"status":"completed"}', "sha256").hexdigest()`.
    const BODY: &[u8] = br#"{"status":"completed"}"#;
    const TAG: &str = "1af7b8abc5d3695e96c5aba6c654a6a46e0e4dc493d0665e3e709e6da4ce7c94";

    fn judge(secrets: &[&str], body: &[u8], values: &[&str]) -> Verdict {
        ProviderSecrets::new(secrets.iter().copied()).judge(body, values.iter().map(|value| value.as_bytes()))
    }

    #[test]
    fn what_the_providers_client_would_accept_is_right() {
        let secrets = ["whsec-of-the-dashboard"];
        let (upper, prefixed) = (TAG.to_uppercase(), format!("sha256={TAG}"));
        for value in [TAG, &upper, &prefixed, &format!("SHA256={TAG}"), &format!("  {TAG} ")] {
            assert_eq!(judge(&secrets, BODY, &[value]), Verdict::Right, "{value}");
        }
        assert_eq!(judge(&["a newer one", "whsec-of-the-dashboard"], BODY, &[TAG]), Verdict::Right, "a rotation");
        assert_eq!(judge(&secrets, BODY, &["ab12", TAG]), Verdict::Right, "one of two");
    }

    #[test]
    fn everything_else_is_wrong_missing_or_unchecked() {
        let secrets = ["whsec-of-the-dashboard"];
        for value in ["ab12", "sha256=", "zz", &TAG[1..], &format!("{TAG}00"), &format!("sha1={TAG}")] {
            assert_eq!(judge(&secrets, BODY, &[value]), Verdict::Wrong, "{value}");
        }
        assert_eq!(judge(&secrets, b"{}", &[TAG]), Verdict::Wrong, "another body");
        assert_eq!(judge(&["another"], BODY, &[TAG]), Verdict::Wrong);
        assert_eq!(judge(&secrets, BODY, &[]), Verdict::Missing);
        assert_eq!(judge(&secrets, BODY, &["", " "]), Verdict::Missing);
        assert_eq!(judge(&[], BODY, &[TAG]), Verdict::Unchecked);
        assert_eq!(format!("{:?}", ProviderSecrets::new(secrets)), "ProviderSecrets(1)");
    }
}
