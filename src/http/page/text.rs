//! How values are written on the page: times, spans, money, and foreign text that must not do harm.

use std::fmt;
use std::time::Duration;

use url::{Host, Url};

use crate::domain::money::Usd;
use crate::domain::time::Time;
use crate::sink::egress::is_public;

/// Longest piece of foreign text in a table, in characters.
const SHORT: usize = 90;

/// Foreign text as it can be shown: control characters and those that turn the direction of reading become visible. Markup is the
/// templates' affair: they escape everything.
pub(super) fn plain(text: &str) -> String {
    let visible = |character: char| match character {
        '\n' | '\t' => character,
        '\u{0}'..='\u{1f}' => char::from_u32(0x2400 + u32::from(character)).unwrap_or(char::REPLACEMENT_CHARACTER),
        '\u{7f}' => '\u{2421}',
        '\u{80}'..='\u{9f}' | '\u{61c}' | '\u{200b}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' => {
            char::REPLACEMENT_CHARACTER
        }
        '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{e0000}'..='\u{e007f}' => char::REPLACEMENT_CHARACTER,
        _ => character,
    };
    text.chars().map(visible).collect()
}

/// The same on one line, cut where it gets long.
pub(super) fn short(text: &str) -> String {
    let mut short: String = plain(text).split_whitespace().collect::<Vec<_>>().join(" ");
    if let Some((end, _)) = short.char_indices().nth(SHORT) {
        short.truncate(end);
        short.push('…');
    }
    short
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

/// A span in its largest unit.
pub(super) fn rough(span: Duration) -> String {
    match span.as_secs() {
        seconds @ ..120 => format!("{seconds} s"),
        seconds @ 120..7_200 => format!("{} min", seconds / 60),
        seconds @ 7_200..172_800 => format!("{} h", seconds / 3_600),
        seconds => format!("{} d", seconds / 86_400),
    }
}

/// A span in minutes and seconds, as clips and their making are timed; what is short to a tenth of a second.
pub(super) fn clock(span: Duration) -> String {
    let seconds = span.as_secs();
    match seconds {
        ..10 if span.subsec_millis() >= 100 => format!("{seconds}.{} s", span.subsec_millis() / 100),
        ..60 => format!("{seconds} s"),
        60..3_600 => format!("{}:{:02} min", seconds / 60, seconds % 60),
        _ => format!("{}:{:02} h", seconds / 3_600, seconds % 3_600 / 60),
    }
}

/// A count with separators.
pub(super) fn count(number: u64) -> String {
    let digits = number.to_string();
    let groups: Vec<_> = digits.as_bytes().rchunks(3).rev().map(String::from_utf8_lossy).collect();
    groups.join("\u{202f}")
}

/// An amount with as many decimals as it needs, and two at least.
pub(super) fn dollars(amount: Usd) -> String {
    let text = amount.to_string();
    let Some((whole, decimals)) = text.split_once('.') else { return text };
    let needed = decimals.trim_end_matches('0').len().max(2);
    format!("{whole}.{}", decimals.get(..needed).unwrap_or(decimals))
}

/// An id by its ends, where the whole one stands beside it.
pub(super) fn abbreviated(id: &str) -> String {
    match (id.get(..12), id.get(id.len().saturating_sub(6)..)) {
        (Some(begin), Some(end)) if id.len() > 24 => format!("{begin}…{end}"),
        _ => id.to_owned(),
    }
}

/// So many of something: `1 event`, `2 events`.
pub(super) fn several(number: u64, what: &str) -> String {
    format!("{} {what}{}", count(number), if number == 1 { "" } else { "s" })
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
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn foreign_text_cannot_hide_or_turn_around() {
        assert_eq!(plain("a\u{1b}[31mb\u{0}\u{7f}"), "a\u{241b}[31mb\u{2400}\u{2421}");
        assert_eq!(plain("cod\u{202e}4pm.exe"), "cod\u{fffd}4pm.exe");
        assert_eq!(plain("two\nlines\tand <b>"), "two\nlines\tand <b>");
        assert_eq!(short("  a \n\n b  "), "a b");
        assert_eq!(short(&"x".repeat(91)).chars().count(), 91);
    }

    proptest! {
        #[test]
        fn no_control_character_is_left(text in any::<String>()) {
            prop_assert!(plain(&text).chars().all(|shown| !shown.is_control() || matches!(shown, '\n' | '\t')));
            prop_assert!(short(&text).chars().count() <= SHORT + 1);
        }
    }

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
        assert_eq!(dollars(Usd::parse("9.1500").unwrap()), "9.15");
        assert_eq!(dollars(Usd::parse("0.000001").unwrap()), "0.000001");
        assert_eq!(dollars(Usd::parse("3").unwrap()), "3.00");
        assert_eq!(abbreviated("gen_01a20bf9b63671ff84f2afcc9018c5b8"), "gen_01a20bf9…18c5b8");
        assert_eq!((clock(Duration::from_secs(125)), clock(Duration::from_secs(9))), ("2:05 min".into(), "9 s".into()));
        assert_eq!(
            (clock(Duration::from_millis(9_990)), clock(Duration::from_millis(11_500))),
            ("9.9 s".into(), "11 s".into())
        );
        assert_eq!((count(1_234_567), count(999)), ("1\u{202f}234\u{202f}567".into(), "999".into()));
    }
}
