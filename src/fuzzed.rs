//! What must hold for any bytes that come from outside: the targets of `fuzz/`, and the tests that replay its corpus.
//!
//! Goes through the same functions as the service. Never part of it: built for tests and for fuzzing only.

use reqwest::StatusCode;
use reqwest::header::HeaderMap;
use serde_json::Value;

use crate::config::Config;
use crate::domain::callback::{CallbackKeys, Reference};
use crate::domain::decision::Answer;
use crate::domain::family::{FAMILIES, Family};
use crate::domain::id::{GenerationId, ProviderId};
use crate::domain::link::is_link;
use crate::domain::notice::{Notice, Word};
use crate::domain::outcome::Outcome;
use crate::domain::purchase::{self, Order, Piece};
use crate::domain::refusal::refusal;
use crate::store::{Order as Direction, Paging, cursor};
use crate::{http, provider};

/// Something that reads bytes from outside.
#[derive(Clone, Copy, Debug)]
pub struct Target {
    /// Its name, and that of its corpus.
    pub name: &'static str,
    /// Reads them, and panics when a promise is broken.
    pub check: fn(&[u8]),
}

/// All of them.
pub const TARGETS: [Target; 8] = [
    Target { name: "webhook", check: webhook },
    Target { name: "status", check: status },
    Target { name: "submit", check: submit },
    Target { name: "token", check: token },
    Target { name: "cursor", check: read_cursor },
    Target { name: "config", check: config },
    Target { name: "purchase", check: purchase },
    Target { name: "query", check: query },
];

/// The target of that name.
pub fn target(name: &str) -> Option<Target> {
    TARGETS.into_iter().find(|target| target.name == name)
}

/// The first byte chooses, the others are read.
fn split(bytes: &[u8]) -> (usize, &[u8]) {
    bytes.split_first().map_or((0, bytes), |(first, rest)| (usize::from(*first), rest))
}

fn family(choice: usize) -> &'static Family {
    &FAMILIES[choice % FAMILIES.len()]
}

/// What was read is whole, and space around JSON changes nothing.
fn webhook(bytes: &[u8]) {
    let notice = Notice::parse(bytes);
    let spaced = [b"\n ".as_slice(), bytes, b" \t"].concat();
    assert_eq!(Notice::parse(&spaced), notice, "space around it matters");
    let Ok(notice) = notice else { return };
    assert_eq!(ProviderId::parse(notice.provider_id.as_str()).as_ref(), Ok(&notice.provider_id));
    match notice.word {
        Word::Outcome(Outcome::Completed { result_url }) => {
            assert!(is_link(&result_url), "completed with what is no link");
        }
        Word::Outcome(Outcome::Failed(failure)) => {
            assert!(failure.text.is_none_or(|text| text.len() <= 4_096), "an endless reason is kept");
        }
        Word::Unknown(word) => assert!(!word.is_empty() && word.len() <= 4_096),
        Word::Pending | Word::Processing | Word::CompletedWithoutResult => {}
    }
}

/// Only a whole 200 about the generation that was asked about says anything of it.
fn status(bytes: &[u8]) {
    const STATUSES: [u16; 12] = [200, 200, 200, 200, 201, 204, 301, 401, 404, 429, 500, 503];
    let (choice, body) = split(bytes);
    let Ok(status) = StatusCode::from_u16(STATUSES[choice % STATUSES.len()]) else { return };
    let Ok(asked) = ProviderId::parse("a") else { return };
    let told = provider::understand(status, &HeaderMap::new(), &asked, body.to_vec());
    assert_eq!(told.http_status, Some(status.as_u16()));
    assert!(told.said.chars().count() <= 128, "an endless word is kept");
    match told.answer {
        Answer::Known(notice) => {
            assert_eq!((status, &notice.provider_id), (StatusCode::OK, &asked));
            assert_eq!(Notice::parse(body).as_ref(), Ok(&notice));
        }
        Answer::NotFound => assert_eq!(status, StatusCode::NOT_FOUND),
        Answer::Paused { .. } | Answer::Nothing => {}
    }
}

/// A sale has an id, and a price only if something was charged; a refusal is a bounded text.
fn submit(bytes: &[u8]) {
    let (choice, body) = split(bytes);
    if let Some((id, price)) = purchase::accepted(body) {
        assert_eq!(ProviderId::parse(id.as_str()), Ok(id));
        assert!(price.is_none_or(|price| price.as_micros() > 0), "a price of nothing");
    }
    let http_status = 400 + u16::try_from(choice).unwrap_or(0);
    let failure = refusal(http_status, body);
    assert_eq!(refusal(http_status, body), failure, "the same bytes say two things");
    assert!(failure.text.is_none_or(|text| text.len() <= 4_096), "an endless text is kept");
    assert!(failure.code.is_none_or(|code| !code.is_empty() && code.len() <= 4_096));
}

/// A token has one spelling, names what it was minted for, and is worth nothing when changed or elsewhere.
fn token(bytes: &[u8]) {
    let keys = CallbackKeys::new(["the key of the fuzzed tokens, long enough"]);
    let (choice, rest) = split(bytes);
    let (family, elsewhere) = (family(choice), family(choice + 1));
    if let Ok(text) = str::from_utf8(rest)
        && let Some(reference) = keys.verify(family, text)
    {
        assert_eq!(keys.mint(family, reference).as_deref(), Some(text), "a second spelling");
    }
    let id = rest.first_chunk::<16>().and_then(|id| GenerationId::from_bytes(id));
    let reference = id.map_or(Reference::Standing, Reference::Generation);
    let Some(minted) = keys.mint(family, reference) else { return };
    assert_eq!(keys.verify(family, &minted), Some(reference));
    assert_eq!(keys.verify(elsewhere, &minted), None, "good for another family");
    let mut changed = minted.clone().into_bytes();
    for pair in rest.get(16..).unwrap_or_default().chunks_exact(2) {
        let place = usize::from(pair[0]) % changed.len();
        changed[place] ^= pair[1];
    }
    if let Ok(changed) = str::from_utf8(&changed)
        && changed != minted
    {
        assert_eq!(keys.verify(family, changed), None, "changed and still good");
    }
}

/// A cursor has one spelling and belongs to its order.
fn read_cursor(bytes: &[u8]) {
    if let Ok(text) = str::from_utf8(bytes) {
        let (up, down) = (Direction::Ascending, Direction::Descending);
        let read = [Paging::read_cursor(text, up), Paging::read_cursor(text, down)];
        assert!(read.iter().flatten().count() <= 1, "good for both orders");
    }
    if let Some((time, number)) = bytes.first_chunk::<16>().and_then(|place| place.split_at_checked(8)) {
        let number_of = |bytes: &[u8]| bytes.try_into().map(i64::from_be_bytes).unwrap_or_default();
        let place = (number_of(time), number_of(number));
        for (order, other) in
            [(Direction::Ascending, Direction::Descending), (Direction::Descending, Direction::Ascending)]
        {
            let text = cursor(place, order);
            assert_eq!(Paging::read_cursor(&text, order), Some(place));
            assert_eq!(Paging::read_cursor(&text, other), None);
        }
    }
}

/// A configuration is refused with a reason, or can be printed.
fn config(bytes: &[u8]) {
    let Ok(text) = str::from_utf8(bytes) else { return };
    match Config::of_text(text) {
        Ok(config) => {
            let printed = toml::to_string_pretty(&config);
            assert!(printed.is_ok_and(|printed| printed.contains("[provider]")), "cannot be printed");
            assert_eq!(Config::of_text(text).ok(), Some(config), "the same text says two things");
        }
        Err(error) => {
            assert!(!error.0.is_empty() && error.0.iter().all(|line| !line.trim().is_empty()), "refused for nothing");
        }
    }
}

/// What is sent is what came, byte for byte but for our callback URL.
fn purchase(bytes: &[u8]) {
    const OURS: &str = "https://recoup.example/webhooks/kling/o3-video/a.b";
    let (choice, body) = split(bytes);
    let Ok(order) = Order::read(family(choice), body) else { return };
    let (mut sent, mut kept_until) = (Vec::new(), 0);
    for piece in order.pieces(Some(OURS)) {
        match piece {
            Piece::Kept(range) => {
                let gap = &body[kept_until..range.start];
                assert!(
                    gap.is_empty() || serde_json::from_slice::<Value>(gap).is_ok(),
                    "more than a value was cut out"
                );
                kept_until = range.end;
                sent.extend_from_slice(&body[range]);
            }
            Piece::Written(text) => sent.extend_from_slice(text.as_bytes()),
        }
    }
    assert_eq!(kept_until, body.len(), "the end is missing");
    let again = Order::read(family(choice), &sent);
    assert!(again.is_ok_and(|again| again.callback_url.as_deref() == Some(OURS) && again.request == order.request));
    let kept = order.pieces(None).into_iter().map(|piece| match piece {
        Piece::Kept(range) => &body[range],
        Piece::Written(_) => unreachable!("something was written where a field is left out"),
    });
    let left = kept.collect::<Vec<_>>().concat();
    let fields = |body: &[u8]| serde_json::from_slice::<Value>(body).ok()?.as_object().cloned();
    if let (Some(mut came), Some(left)) = (fields(body), fields(&left)) {
        came.remove("callback_url");
        assert_eq!(came, left, "more than the callback URL was left out");
    }
    assert!(Order::read(family(choice), &left).is_ok_and(|left| left.callback_url.is_none()));
    let others = |body: &[u8]| {
        let mut fields = serde_json::from_slice::<Value>(body).ok()?;
        fields.as_object_mut()?.remove("callback_url");
        Some(fields)
    };
    assert_eq!(others(body), others(&sent), "another field was changed");
}

/// A query is refused, or means the same however its parameters are written.
fn query(bytes: &[u8]) {
    let Ok(text) = str::from_utf8(bytes) else { return };
    let read = http::list_query(text);
    let pairs = url::form_urlencoded::parse(text.as_bytes());
    let spelled = url::form_urlencoded::Serializer::new(String::new()).extend_pairs(pairs).finish();
    assert_eq!(http::list_query(&spelled), read, "another spelling means something else");
    if let Some((_, paging)) = read {
        assert!((1..=200).contains(&paging.limit));
    }
}

/// Puts a word in the place of one of the quoted texts.
fn exchange_text(bytes: &mut Vec<u8>, word: &[u8], chance: &mut fastrand::Rng) {
    let quotes: Vec<_> = bytes.iter().enumerate().filter(|(_, byte)| **byte == b'"').map(|(place, _)| place).collect();
    if quotes.len() >= 2 {
        let nth = chance.usize(..quotes.len() - 1);
        drop(bytes.splice(quotes[nth]..=quotes[nth + 1], word.iter().copied()));
    }
}

/// Bytes near to those given, by chance.
pub fn mutated(bytes: &[u8], chance: &mut fastrand::Rng) -> Vec<u8> {
    const WORDS: [&[u8]; 14] = [
        b"\"",
        b"{",
        b"}",
        b"[]",
        b"null",
        b"7",
        b"callback_url",
        b"status",
        b"\\u0000",
        b"-1e999",
        b"\xff",
        b"=",
        b"%5B",
        b"{}",
    ];
    let mut bytes = bytes.to_vec();
    for _ in 0..chance.u16(1..6) {
        let place = chance.usize(..=bytes.len());
        let length = chance.usize(..=(bytes.len() - place).min(8));
        match chance.u8(..5) {
            0 => drop(bytes.drain(place..place + length)),
            1 => drop(bytes.splice(place..place, WORDS[chance.usize(..WORDS.len())].iter().copied())),
            2 => bytes.extend_from_within(place..place + length),
            3 => exchange_text(&mut bytes, WORDS[chance.usize(..WORDS.len())], chance),
            _ => {
                if let Some(byte) = bytes.get_mut(place) {
                    *byte ^= 1 << chance.u8(..8);
                }
            }
        }
    }
    bytes
}

#[cfg(test)]
mod tests {
    use std::panic::{AssertUnwindSafe, catch_unwind};
    use std::path::{Path, PathBuf};

    use super::*;
    use crate::planted::{self, Fault};

    /// Changed copies of each file of the corpus.
    const EACH: usize = 40;

    fn corpus(target: Target) -> Vec<(PathBuf, Vec<u8>)> {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus").join(target.name);
        let mut files: Vec<_> = folder.read_dir().unwrap().map(|entry| entry.unwrap().path()).collect();
        files.sort();
        files.into_iter().map(|path| (path.clone(), std::fs::read(path).unwrap())).collect()
    }

    #[test]
    fn the_corpus_and_what_is_near_it_break_no_promise() {
        let mut chance = fastrand::Rng::with_seed(1);
        for target in TARGETS {
            let corpus = corpus(target);
            assert!(corpus.len() >= 3, "{} has a corpus", target.name);
            for (path, bytes) in corpus {
                let near = std::iter::repeat_with(|| mutated(&bytes, &mut chance)).take(EACH);
                for bytes in std::iter::once(bytes.clone()).chain(near) {
                    let broken = catch_unwind(|| (target.check)(&bytes)).is_err();
                    assert!(!broken, "{} near {}: {:?}", target.name, path.display(), String::from_utf8_lossy(&bytes));
                }
            }
        }
    }

    #[test]
    fn a_parser_that_panics_is_found() {
        planted::plant(Some(Fault::ParserPanics));
        let mut chance = fastrand::Rng::with_seed(1);
        let corpus = corpus(target("webhook").unwrap());
        let found = corpus.iter().any(|(_, bytes)| {
            let tried = (0..10 * EACH).map(|_| mutated(bytes, &mut chance));
            tried.into_iter().any(|bytes| catch_unwind(AssertUnwindSafe(|| webhook(&bytes))).is_err())
        });
        planted::plant(None);
        assert!(found);
    }
}
