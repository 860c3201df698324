//! What is on record about one generation, fit to be sent to the provider's support: ids, times, price, and every message
//! with its hash.
//!
//! Holds nothing that is not the provider's business: no callback URL (it is a credential), no labels, no key.

use std::fmt::Write;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::Serialize;
use sha2::{Digest, Sha256};
use utoipa::ToSchema;

use super::credits::CreditState;
use super::delivery_headers::{DeliveryHeaders, Signature};
use super::equal_purchases::EqualPurchase;
use super::generation::{Attention, Generation, Status};
use super::id::{CheckId, DeliveryId, GenerationId, ProviderId};
use super::money::Usd;
use super::outcome::{Failure, Learned};
use super::purchase::SubmitResult;
use super::time::Time;

/// A message's body: its hash always, itself while it is kept.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub struct Message {
    /// Its length.
    pub bytes: u64,
    /// SHA-256, hexadecimal.
    pub sha256: String,
    /// The body where it is text and still kept.
    pub body: Option<String>,
    /// The body where it is no text.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub body_base64: Option<String>,
}

impl Message {
    /// A message whose hash was taken when it came.
    pub fn hashed(bytes: u64, sha256: &[u8], body: Option<Vec<u8>>) -> Self {
        let (body, body_base64) = match body.map(String::from_utf8) {
            None => (None, None),
            Some(Ok(text)) => (Some(text), None),
            Some(Err(binary)) => (None, Some(STANDARD.encode(binary.as_bytes()))),
        };
        Self { bytes, sha256: hex::encode(sha256), body, body_base64 }
    }

    /// A message that is kept whole.
    pub fn whole(body: Vec<u8>) -> Self {
        let sha256 = Sha256::digest(&body);
        Self::hashed(u64::try_from(body.len()).unwrap_or(u64::MAX), &sha256, Some(body))
    }
}

/// The generation, as far as it concerns the provider.
#[derive(Clone, Debug, PartialEq, Serialize, ToSchema)]
pub struct Subject {
    /// Our id.
    pub id: GenerationId,
    /// The provider's id.
    pub generation_id: Option<ProviderId>,
    /// What it was bought from.
    pub family: &'static str,
    /// The model.
    pub model: Option<String>,
    /// Length in seconds.
    pub duration_seconds: Option<u32>,
    /// What it cost.
    pub price: Option<Usd>,
    /// Where it stands.
    pub status: Status,
    /// Why somebody should look.
    pub attention: Option<Attention>,
    /// Where the credits are.
    pub credits: CreditState,
    /// When it was bought.
    pub submitted_at: Option<Time>,
    /// When its outcome was expected.
    pub expected_by: Option<Time>,
    /// When the outcome was learned.
    pub settled_at: Option<Time>,
    /// Where the result is.
    pub result_url: Option<String>,
    /// Why it failed or was refused.
    pub error: Option<Failure>,
    /// How the outcome was learned.
    pub source: Option<&'static str>,
    /// What vouches for it.
    pub verification: Option<&'static str>,
}

impl Subject {
    /// What concerns the provider of `generation`.
    pub fn of(generation: &Generation, credits: CreditState) -> Self {
        let (state, learned) = (&generation.state, generation.state.learned());
        Self {
            id: generation.id,
            generation_id: generation.provider_id.clone(),
            family: generation.family.path,
            model: generation.request.model.clone(),
            duration_seconds: generation.request.duration_seconds,
            price: generation.price,
            status: state.status(),
            attention: generation.attention,
            credits,
            submitted_at: generation.submitted_at,
            expected_by: generation.expected_by,
            settled_at: state.settled_at(),
            result_url: state.result_url().map(str::to_owned),
            error: state.error().cloned(),
            source: learned.map(|Learned { source, .. }| source.as_str()),
            verification: learned.map(|Learned { verification, .. }| verification.as_str()),
        }
    }
}

/// The purchase, where it passed through us.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub struct Submitted {
    /// When the intent was written down, right before it was sent.
    pub sent_at: Time,
    /// When it was answered.
    pub answered_at: Option<Time>,
    /// Length of the request as the caller sent it.
    pub request_bytes: i64,
    /// Its SHA-256.
    pub request_sha256: String,
    /// What came of it.
    pub result: Option<SubmitResult>,
    /// HTTP status of the answer.
    pub http_status: Option<u16>,
    /// In a few words.
    pub said: Option<String>,
    /// The answer.
    pub answer: Option<Message>,
}

/// A webhook that came.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub struct Delivered {
    /// Our id of it.
    pub id: DeliveryId,
    /// When.
    pub received_at: Time,
    /// What became of it.
    pub disposition: String,
    /// Why it could not be read.
    pub reason: Option<String>,
    /// What is known of its signature; null for one without.
    pub signature: Option<Signature>,
    /// The headers that are kept of it, but for those that proxies of ours add.
    pub headers: DeliveryHeaders,
    /// What it said.
    #[serde(flatten)]
    pub message: Message,
}

/// A status answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub struct Checked {
    /// Our id of it.
    pub id: CheckId,
    /// When the provider was asked.
    pub sent_at: Time,
    /// When it answered.
    pub answered_at: Option<Time>,
    /// HTTP status.
    pub http_status: Option<u16>,
    /// In a few words.
    pub said: Option<String>,
    /// The answer.
    pub answer: Option<Message>,
}

/// The whole.
#[derive(Clone, Debug, PartialEq, Serialize, ToSchema)]
pub struct Evidence {
    /// When this was put together.
    pub made_at: Time,
    /// By which program.
    pub made_by: &'static str,
    /// In one sentence.
    pub summary: String,
    /// What it is about.
    pub generation: Subject,
    /// How it was bought, where that passed through us.
    pub purchase: Option<Submitted>,
    /// The same bought again within ten minutes, oldest first.
    pub equal_purchases: Vec<EqualPurchase>,
    /// The webhooks, oldest first.
    pub deliveries: Vec<Delivered>,
    /// The status answers, oldest first.
    pub checks: Vec<Checked>,
}

impl Evidence {
    /// As a Markdown page.
    pub fn to_markdown(&self) -> String {
        let mut page = String::new();
        match self.write(&mut page) {
            // Writing into a string cannot fail.
            Ok(()) | Err(std::fmt::Error) => page,
        }
    }

    fn write(&self, page: &mut String) -> std::fmt::Result {
        let subject = &self.generation;
        let name = subject.generation_id.as_ref().map_or_else(|| subject.id.to_string(), ToString::to_string);
        writeln!(page, "# Generation {name}\n\n{}\n", self.summary)?;
        writeln!(page, "| | |\n|---|---|")?;
        for (key, value) in subject.rows() {
            writeln!(page, "| {key} | {} |", cell(&value))?;
        }
        if let Some(purchase) = &self.purchase {
            writeln!(page, "\n## Purchase\n")?;
            writeln!(
                page,
                "Sent {}, {} bytes, SHA-256 `{}`. Answered {}: {}{}.",
                purchase.sent_at,
                purchase.request_bytes,
                purchase.request_sha256,
                time(purchase.answered_at),
                status(purchase.http_status),
                purchase.said.as_deref().unwrap_or("nothing yet"),
            )?;
            block(page, purchase.answer.as_ref())?;
        }
        if !self.equal_purchases.is_empty() {
            writeln!(page, "\n## Equal purchases within ten minutes: {}\n", self.equal_purchases.len())?;
            writeln!(
                page,
                "| our id | generation_id | status | price | credits | bought |\n|---|---|---|---|---|---|"
            )?;
        }
        for EqualPurchase { id, generation_id, status, price, credits, bought_at } in &self.equal_purchases {
            let text = |value: Option<String>| cell(&value.unwrap_or_else(|| "unknown".to_owned()));
            let name = text(generation_id.as_ref().map(ToString::to_string));
            let price = text(price.map(|price| format!("{price} USD")));
            let (status, credits) = (status.as_str(), credits.as_str());
            writeln!(page, "| {id} | {name} | {status} | {price} | {credits} | {bought_at} |")?;
        }
        writeln!(page, "\n## Webhooks received: {}", self.deliveries.len())?;
        for delivery in &self.deliveries {
            let reason = delivery.reason.as_ref().map(|reason| format!(" ({reason})")).unwrap_or_default();
            writeln!(page, "\n### {} {}{reason}", delivery.received_at, delivery.disposition)?;
            if let Some(signature) = delivery.signature {
                writeln!(page, "\nSignature: {}", signature.as_str())?;
            }
            headers(page, &delivery.headers)?;
            block(page, Some(&delivery.message))?;
        }
        writeln!(page, "\n## Status answers: {}", self.checks.len())?;
        for check in &self.checks {
            let said = check.said.as_deref().unwrap_or("no answer");
            writeln!(page, "\n### {} {}{said}", check.sent_at, status(check.http_status))?;
            block(page, check.answer.as_ref())?;
        }
        writeln!(page, "\nPut together {} by {}. All times are UTC.", self.made_at, self.made_by)
    }
}

impl Subject {
    fn rows(&self) -> Vec<(&'static str, String)> {
        let text = |value: Option<String>| value.unwrap_or_else(|| "unknown".to_owned());
        let mut rows = vec![
            ("generation_id", text(self.generation_id.as_ref().map(ToString::to_string))),
            ("our id", self.id.to_string()),
            ("family", self.family.to_owned()),
            ("model", text(self.model.clone())),
            ("duration", text(self.duration_seconds.map(|seconds| format!("{seconds} s")))),
            ("price", text(self.price.map(|price| format!("{price} USD")))),
            ("status", self.status.as_str().to_owned()),
            ("credits", self.credits.as_str().to_owned()),
            ("submitted", time(self.submitted_at)),
            ("expected by", time(self.expected_by)),
            ("settled", time(self.settled_at)),
        ];
        let optional = [
            ("attention", self.attention.map(|attention| attention.as_str().to_owned())),
            ("result", self.result_url.clone()),
            ("error code", self.error.as_ref().and_then(|error| error.code.clone())),
            ("error text", self.error.as_ref().and_then(|error| error.text.clone())),
            ("learned by", self.source.map(str::to_owned)),
            ("verified by", self.verification.map(str::to_owned)),
        ];
        rows.extend(optional.into_iter().filter_map(|(key, value)| Some((key, value?))));
        rows
    }
}

fn time(at: Option<Time>) -> String {
    at.map_or_else(|| "never".to_owned(), |at| at.to_string())
}

fn status(status: Option<u16>) -> String {
    status.map(|status| format!("HTTP {status}, ")).unwrap_or_default()
}

/// A value that cannot break out of its cell.
fn cell(value: &str) -> String {
    value.replace('\\', "\\\\").replace('|', "\\|").replace(['\n', '\r'], " ")
}

/// The headers of a delivery as a table.
fn headers(page: &mut String, headers: &DeliveryHeaders) -> std::fmt::Result {
    if headers.is_empty() {
        return Ok(());
    }
    writeln!(page, "\n| header | value |\n|---|---|")?;
    for (name, value) in &headers.0 {
        writeln!(page, "| {} | {} |", cell(name), cell(value))?;
    }
    Ok(())
}

/// A body as a code block that it cannot break out of.
fn block(page: &mut String, message: Option<&Message>) -> std::fmt::Result {
    let Some(message) = message else { return Ok(()) };
    writeln!(page, "\n{} bytes, SHA-256 `{}`", message.bytes, message.sha256)?;
    let Some(body) = message.body.as_ref().or(message.body_base64.as_ref()).filter(|body| !body.is_empty()) else {
        return Ok(());
    };
    let longest = body.split(|c| c != '`').map(str::len).max().unwrap_or(0);
    let fence = "`".repeat(longest.max(2) + 1);
    writeln!(page, "\n{fence}\n{body}\n{fence}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_body_cannot_break_out_of_the_page() {
        let mut page = String::new();
        block(&mut page, Some(&Message::whole(b"```\n# not a heading\n````".to_vec()))).unwrap();
        assert!(page.contains("\n`````\n```\n# not a heading\n````\n`````\n"), "{page}");
        assert_eq!(cell("a|b\nc\\"), "a\\|b c\\\\");
    }

    /// So many seconds after 2026-11-23T10:00:00Z.
    fn at(seconds: i64) -> Time {
        Time::from_ms(1_795_428_000_000 + seconds * 1_000)
    }

    fn failed() -> Evidence {
        Evidence {
            made_at: at(900),
            made_by: "recoup",
            summary: "It failed.".to_owned(),
            generation: Subject {
                id: GenerationId::fresh(at(0)),
                generation_id: ProviderId::parse("p-1").ok(),
                family: "kling/o3-video",
                model: Some("kling_o3".to_owned()),
                duration_seconds: Some(5),
                price: Some(Usd::from_micros(150_000)),
                status: Status::Failed,
                attention: Some(Attention::Conflict),
                credits: CreditState::AtRisk,
                submitted_at: Some(at(0)),
                expected_by: Some(at(180)),
                settled_at: None,
                result_url: Some("https://cdn.example/v.mp4".to_owned()),
                error: Some(Failure { code: Some("TIMEOUT".to_owned()), text: Some("too | slow".to_owned()) }),
                source: Some("webhook"),
                verification: None,
            },
            purchase: Some(Submitted {
                sent_at: at(0),
                answered_at: Some(at(1)),
                request_bytes: 3,
                request_sha256: "ab".to_owned(),
                result: None,
                http_status: Some(201),
                said: None,
                answer: Some(Message::whole(b"{}".to_vec())),
            }),
            equal_purchases: vec![EqualPurchase {
                id: GenerationId::from_bytes(&[7; 16]).unwrap(),
                generation_id: None,
                status: Status::Unconfirmed,
                price: None,
                credits: CreditState::AtRisk,
                bought_at: at(30),
            }],
            deliveries: vec![Delivered {
                id: DeliveryId::fresh(at(0)),
                received_at: at(200),
                disposition: "unreadable".to_owned(),
                reason: Some("no JSON".to_owned()),
                signature: Some(Signature::Verified),
                headers: DeliveryHeaders([("x-a".to_owned(), "b|c".to_owned())].into()),
                message: Message::hashed(0, &[0xcd], Some(Vec::new())),
            }],
            checks: vec![Checked {
                id: CheckId::fresh(at(0)),
                sent_at: at(300),
                answered_at: None,
                http_status: None,
                said: None,
                answer: None,
            }],
        }
    }

    #[test]
    fn the_page_tells_everything_that_is_known() {
        let evidence = failed();
        let (id, answer) = (evidence.generation.id, hex::encode(Sha256::digest(b"{}")));
        let equal = evidence.equal_purchases[0].id;
        let expected = format!(
            "# Generation p-1\n\nIt failed.\n\n| | |\n|---|---|\n| generation_id | p-1 |\n| our id | {id} |\n| family | kling/o3-video |\n\
             | model | kling_o3 |\n| duration | 5 s |\n| price | 0.1500 USD |\n| status | failed |\n| credits | at_risk |\n\
             | submitted | 2026-11-23T10:00:00Z |\n| expected by | 2026-11-23T10:03:00Z |\n| settled | never |\n\
             | attention | conflict |\n| result | https://cdn.example/v.mp4 |\n| error code | TIMEOUT |\n| error text | too \\| slow |\n\
             | learned by | webhook |\n\n## Purchase\n\nSent 2026-11-23T10:00:00Z, 3 bytes, SHA-256 `ab`. Answered \
             2026-11-23T10:00:01Z: HTTP 201, nothing yet.\n\n2 bytes, SHA-256 `{answer}`\n\n```\n{{}}\n```\n\n## Equal purchases within ten minutes: 1\n\n\
             | our id | generation_id | status | price | credits | bought |\n|---|---|---|---|---|---|\n\
             | {equal} | unknown | unconfirmed | unknown | at_risk | 2026-11-23T10:00:30Z |\n\n## Webhooks received: 1\n\n\
             ### 2026-11-23T10:03:20Z unreadable (no JSON)\n\nSignature: verified\n\n| header | value |\n|---|---|\n| x-a | b\\|c |\n\n0 bytes, SHA-256 `cd`\n\n## Status answers: 1\n\n\
             ### 2026-11-23T10:05:00Z no answer\n\nPut together 2026-11-23T10:15:00Z by recoup. All times are UTC.\n"
        );
        assert_eq!(evidence.to_markdown(), expected);
    }

    #[test]
    fn a_body_is_shown_as_it_is_kept() {
        let shown = |body: Option<Vec<u8>>| {
            let mut page = String::new();
            block(&mut page, Some(&Message::hashed(3, &[0xcd], body))).unwrap();
            page
        };
        let head = "\n3 bytes, SHA-256 `cd`\n";
        assert_eq!((shown(None), shown(Some(vec![]))), (head.to_owned(), head.to_owned()));
        assert_eq!(shown(Some(b"a`b".to_vec())), format!("{head}\n```\na`b\n```\n"));
        assert_eq!(shown(Some(vec![0xff])), format!("{head}\n```\n/w==\n```\n"));
    }

    #[test]
    fn what_is_no_text_is_shown_in_base64() {
        let message = Message::whole(vec![0xff, 0xfe]);
        assert_eq!((message.body, message.body_base64.as_deref()), (None, Some("//4=")));
        assert_eq!(message.sha256.len(), 64);
    }
}
