//! How values are written for people, on the page and on a terminal: spans, counts, amounts, and foreign text that must do no harm.
//!
//! Never decides what is shown. Markup is the templates' affair, colour the terminal's.

use std::time::Duration;

use super::money::Usd;

/// Foreign text as it can be shown: control characters and those that turn the direction of reading become visible.
pub fn plain(text: &str) -> String {
    let visible = |character: char| match character {
        '\n' | '\t' => character,
        '\u{0}'..='\u{1f}' => char::from_u32(0x2400 + u32::from(character)).unwrap_or(char::REPLACEMENT_CHARACTER),
        '\u{7f}' => '\u{2421}',
        character if is_hidden(character) => char::REPLACEMENT_CHARACTER,
        character => character,
    };
    text.chars().map(visible).collect()
}

/// Whether a character beyond ASCII steers whoever shows it instead of being seen.
fn is_hidden(character: char) -> bool {
    matches!(
        character,
        '\u{80}'..='\u{9f}' | '\u{61c}' | '\u{200b}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}'
        | '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{e0000}'..='\u{e007f}'
    )
}

/// [`plain`] on one line, cut where it gets longer than `chars_max`.
pub fn short(text: &str, chars_max: usize) -> String {
    let mut short = line(text);
    if let Some((end, _)) = short.char_indices().nth(chars_max) {
        short.truncate(end);
        short.push('…');
    }
    short
}

/// [`plain`] on one line, however long.
pub fn line(text: &str) -> String {
    plain(text).split_whitespace().collect::<Vec<_>>().join(" ")
}

/// JSON text that means the same and can be shown: characters that steer a terminal stand as `\u` escapes. They can only be inside
/// strings, so no other place changes.
pub fn plain_json(json: &str) -> String {
    let mut shown = String::with_capacity(json.len());
    for character in json.chars() {
        if character == '\u{7f}' || is_hidden(character) {
            for unit in character.encode_utf16(&mut [0; 2]) {
                shown.extend(format!("\\u{unit:04x}").chars());
            }
        } else {
            shown.push(character);
        }
    }
    shown
}

/// A span in its largest unit.
pub fn rough(span: Duration) -> String {
    match span.as_secs() {
        seconds @ ..120 => format!("{seconds} s"),
        seconds @ 120..7_200 => format!("{} min", seconds / 60),
        seconds @ 7_200..172_800 => format!("{} h", seconds / 3_600),
        seconds => format!("{} d", seconds / 86_400),
    }
}

/// A span in minutes and seconds, as clips and their making are timed; what is short to a tenth of a second.
pub fn clock(span: Duration) -> String {
    let seconds = span.as_secs();
    match seconds {
        ..10 if span.subsec_millis() >= 100 => format!("{seconds}.{} s", span.subsec_millis() / 100),
        ..60 => format!("{seconds} s"),
        60..3_600 => format!("{}:{:02} min", seconds / 60, seconds % 60),
        _ => format!("{}:{:02} h", seconds / 3_600, seconds % 3_600 / 60),
    }
}

/// A count with separators.
pub fn count(number: u64) -> String {
    let digits = number.to_string();
    let groups: Vec<_> = digits.as_bytes().rchunks(3).rev().map(String::from_utf8_lossy).collect();
    groups.join("\u{202f}")
}

/// An amount with as many decimals as it needs, and two at least.
pub fn dollars(amount: Usd) -> String {
    let text = amount.to_string();
    let Some((whole, decimals)) = text.split_once('.') else { return text };
    let needed = decimals.trim_end_matches('0').len().max(2);
    format!("{whole}.{}", decimals.get(..needed).unwrap_or(decimals))
}

/// So many of something: `1 event`, `2 events`.
pub fn several(number: u64, what: &str) -> String {
    format!("{} {what}{}", count(number), if number == 1 { "" } else { "s" })
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
        assert_eq!(short("  a \n\n b  ", 90), "a b");
        assert_eq!(short(&"x".repeat(91), 90).chars().count(), 91);
    }

    proptest! {
        #[test]
        fn no_control_character_is_left(text in any::<String>()) {
            prop_assert!(plain(&text).chars().all(|shown| !shown.is_control() || matches!(shown, '\n' | '\t')));
            prop_assert!(short(&text, 90).chars().all(|shown| !shown.is_control()));
            prop_assert!(short(&text, 90).chars().count() <= 91);
        }

        #[test]
        fn json_shows_no_control_character_and_means_the_same(text in any::<String>()) {
            let json = serde_json::to_string(&text).unwrap();
            let shown = plain_json(&json);
            prop_assert!(!shown.chars().any(|shown| shown.is_control() || is_hidden(shown)));
            prop_assert_eq!(serde_json::from_str::<String>(&shown).unwrap(), text);
        }
    }

    #[test]
    fn json_beyond_the_first_plane_is_escaped_in_two_halves() {
        assert_eq!(plain_json("\"a\u{e0001}\u{9b}\u{7f}\u{202e}b\""), r#""a\udb40\udc01\u009b\u007f\u202eb""#);
    }

    #[test]
    fn figures_are_told_roughly_and_exactly() {
        assert_eq!(dollars(Usd::parse("9.1500").unwrap()), "9.15");
        assert_eq!(dollars(Usd::parse("0.000001").unwrap()), "0.000001");
        assert_eq!(dollars(Usd::parse("3").unwrap()), "3.00");
        assert_eq!((clock(Duration::from_secs(125)), clock(Duration::from_secs(9))), ("2:05 min".into(), "9 s".into()));
        let short = (clock(Duration::from_millis(9_990)), clock(Duration::from_millis(11_500)));
        assert_eq!(short, ("9.9 s".into(), "11 s".into()));
        let longer = [60, 3_599, 3_600, 7_384].map(|seconds| clock(Duration::from_secs(seconds)));
        assert_eq!(longer, ["1:00 min", "59:59 min", "1:00 h", "2:03 h"]);
        assert_eq!([99, 100].map(|ms| clock(Duration::from_millis(ms))), ["0 s", "0.1 s"]);
        let roughly = [0, 119, 120, 7_199, 7_200, 172_799, 172_800].map(|seconds| rough(Duration::from_secs(seconds)));
        assert_eq!(roughly, ["0 s", "119 s", "2 min", "119 min", "2 h", "47 h", "2 d"]);
        assert_eq!(line(" a\n b\u{202e} "), "a b\u{fffd}");
        assert_eq!((count(1_234_567), count(999)), ("1\u{202f}234\u{202f}567".into(), "999".into()));
        assert_eq!((several(1, "event"), several(2, "event")), ("1 event".into(), "2 events".into()));
    }
}
