//! How values are written on the page: what `domain/spelling.rs` says, points in time, and links that may be followed.

use std::fmt;

use url::{Host, Url};

use crate::domain::spelling;
pub(super) use crate::domain::spelling::{clock, count, dollars, plain, rough, several};
use crate::domain::time::Time;
use crate::sink::egress::is_public;

/// Longest piece of foreign text in a table, in characters.
const SHORT: usize = 90;

/// Foreign text on one line, cut where it gets long.
pub(super) fn short(text: &str) -> String {
    spelling::short(text, SHORT)
}

/// A point in time as people read it, with the exact one behind it.
#[derive(Clone, Copy, Debug)]
pub(super) struct When {
    /// The point.
    pub(super) at: Time,
    /// When it is.
    pub(super) now: Time,
}

impl When {
    pub(super) fn of(at: Time, now: Time) -> Self {
        Self { at, now }
    }

    /// Exactly, in UTC.
    pub(super) fn exact(&self) -> String {
        exact(self.at)
    }
}

/// `2026-11-23 10:02:31`, in UTC.
pub(super) fn exact(at: Time) -> String {
    let text = at.to_string();
    match (text.get(..10), text.get(11..19)) {
        (Some(day), Some(time)) => format!("{day} {time}"),
        _ => text,
    }
}

impl fmt::Display for When {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.at > self.now {
            write!(f, "in {}", rough(self.at.since(self.now)))
        } else {
            write!(f, "{} ago", rough(self.now.since(self.at)))
        }
    }
}

/// An id by its ends, where the whole one stands beside it.
pub(super) fn abbreviated(id: &str) -> String {
    match (id.get(..12), id.get(id.len().saturating_sub(6)..)) {
        (Some(begin), Some(end)) if id.len() > 24 => format!("{begin}…{end}"),
        _ => id.to_owned(),
    }
}

/// Which links may be followed from the page.
#[derive(Clone, Debug)]
pub(super) struct Links {
    /// The provider's own address: it is trusted with the key, so also with a link.
    pub(super) provider: Url,
}

impl Links {
    /// The link, if it is one that may be followed: http or https, to a public host or the provider's own, without a password.
    pub(super) fn safe(&self, text: &str) -> Option<Url> {
        let url = Url::parse(text).ok()?;
        if !matches!(url.scheme(), "http" | "https") || !url.username().is_empty() || url.password().is_some() {
            return None;
        }
        let public = match url.host()? {
            Host::Ipv4(address) => is_public(address.into()),
            Host::Ipv6(address) => is_public(address.into()),
            Host::Domain(name) => is_public_name(name),
        };
        (public || url.origin() == self.provider.origin()).then_some(url)
    }
}

/// Names that mean something else on every network are somebody's inside.
fn is_public_name(name: &str) -> bool {
    let name = name.trim_end_matches('.').to_ascii_lowercase();
    let inside = ["localhost", "local", "internal", "intranet", "lan", "home", "corp", "home.arpa", "test", "invalid"];
    name.contains('.') && !inside.iter().any(|inside| name.strip_suffix(inside).is_some_and(|rest| rest.ends_with('.')))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn only_public_links_can_be_followed() {
        let links = Links { provider: Url::parse("http://127.0.0.1:9999/v1").unwrap() };
        for good in [
            "https://cdn.example.net/v.mp4",
            "http://cdn.example.net:8080/v.mp4?x=1",
            "https://93.184.216.34/v.mp4",
            "http://127.0.0.1:9999/videos/1.mp4",
        ] {
            assert!(links.safe(good).is_some(), "{good}");
        }
        for bad in [
            "javascript:alert(1)",
            "data:text/html,<script>",
            "file:///etc/passwd",
            "ftp://cdn.example.net/v",
            "//cdn.example.net/v",
            "https://user:pass@cdn.example.net/v",
            "https://127.0.0.1/v",
            "https://0x7f.1/v",
            "https://[::1]/v",
            "https://[::ffff:10.0.0.1]/v",
            "https://169.254.169.254/latest",
            "https://localhost/v",
            "https://printer/v",
            "https://db.internal/v",
            "https://nas.local./v",
            "http://127.0.0.1:9998/v",
            "https://127.0.0.1:9999/v",
            "not a link",
        ] {
            assert!(links.safe(bad).is_none(), "{bad}");
        }
    }

    #[test]
    fn times_are_told_roughly_and_exactly() {
        let now = Time::parse("2026-11-23T10:02:31.482Z").unwrap();
        let ago = |seconds| When::of(now - Duration::from_secs(seconds), now).to_string();
        assert_eq!((ago(0), ago(119), ago(120)), ("0 s ago".into(), "119 s ago".into(), "2 min ago".into()));
        assert_eq!((ago(7_200), ago(172_800)), ("2 h ago".into(), "2 d ago".into()));
        assert_eq!(When::of(now + Duration::from_mins(5), now).to_string(), "in 5 min");
        assert_eq!(When::of(now, now).exact(), "2026-11-23 10:02:31");
        assert_eq!(abbreviated("gen_01a20bf9b63671ff84f2afcc9018c5b8"), "gen_01a20bf9…18c5b8");
    }
}
