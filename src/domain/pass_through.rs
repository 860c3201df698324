//! What the provider told, passed on as it came: which of its bodies says what is believed, and what is laid over it.
//!
//! A body is passed on only where it agrees with what is on record: a contradiction, a claim nobody confirmed and a word about another
//! generation never are. Never changes what the provider said but for id and status; it adds what it left out.

use serde::Serialize;
use serde_json::{Map, Value, json};
use utoipa::ToSchema;

use super::delivery_headers::DeliveryHeaders;
use super::family::{Family, Medium};
use super::generation::{Generation, State};
use super::link::is_link;
use super::notice::{Notice, Word};
use super::shape;
use super::words::words;

/// A body in which the provider told of a generation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProviderBody {
    /// As it came.
    pub bytes: Vec<u8>,
    /// By which way.
    pub channel: Channel,
}

/// By which way the provider told something.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Channel {
    /// A webhook that can be believed by itself, and the headers that are kept of it.
    Webhook(DeliveryHeaders),
    /// The answer to a status read.
    Read,
}

words! {
    /// What is behind the link of a result.
    LinkType {
        /// A clip.
        Video = "video",
        /// A still picture.
        Image = "image",
    }
}

/// The link of a result.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
#[schema(as = ResultLink)]
pub struct ResultLink {
    /// Where it is.
    pub url: String,
    /// What is behind it.
    pub r#type: LinkType,
}

/// The newest of `bodies` (newest first) that says what is on record.
fn agreeing<'b>(generation: &Generation, bodies: &'b [ProviderBody]) -> Option<(&'b ProviderBody, Map<String, Value>)> {
    bodies.iter().find_map(|body| {
        let notice = Notice::parse(&body.bytes).ok()?;
        let ours = generation.provider_id.as_ref() == Some(&notice.provider_id);
        let fields = (ours && says_the_same(generation, &notice.word)).then(|| fields(&body.bytes)).flatten()?;
        Some((body, fields))
    })
}

/// Whether the provider's word is what is on record.
fn says_the_same(generation: &Generation, word: &Word) -> bool {
    match (&generation.state, word) {
        (State::Completed { .. } | State::Failed { .. }, Word::Outcome(told)) => {
            generation.state.outcome().is_some_and(|known| known.agrees(told))
        }
        (
            State::Pending | State::Processing | State::Lost { .. },
            Word::Pending | Word::Processing | Word::Unknown(_) | Word::CompletedWithoutResult,
        ) => true,
        _ => false,
    }
}

/// The fields of a body. Our own callback URL is a credential: should the provider echo it, it goes to nobody.
fn fields(body: &[u8]) -> Option<Map<String, Value>> {
    let mut fields: Map<String, Value> = serde_json::from_slice(body).ok()?;
    fields.remove("callback_url");
    Some(fields)
}

/// The answer to a status read; `None` while the provider's id is not known. `bodies`: newest first. `sold`: the provider's answer to the
/// purchase, where that has a field that no status answer need repeat.
pub fn status(generation: &Generation, bodies: &[ProviderBody], sold: Option<&[u8]>) -> Option<Value> {
    let mut ours = shape::status(generation)?;
    if generation.request.prompt.is_none()
        && let Some(prompt) = prompt(bodies)
    {
        ours.insert("prompt".to_owned(), Value::String(prompt));
    }
    if let Some(seed) = ours.get_mut("seed").filter(|seed| seed.is_null()) {
        *seed = sold.and_then(fields).and_then(|mut sold| sold.remove("seed")).unwrap_or_default();
    }
    let told = agreeing(generation, bodies).map(|(_, told)| told).unwrap_or_default();
    Some(Value::Object(lay_over(generation, told, ours)))
}

/// What a webhook would say where none did: a read found the outcome. `None` while the provider's id is not known.
pub fn webhook(generation: &Generation, bodies: &[ProviderBody]) -> Option<Value> {
    let ours = shape::webhook(generation)?;
    let mut told = agreeing(generation, bodies).map(|(_, told)| told).unwrap_or_default();
    // What only a status answer has: the documentation of the webhook says so.
    told.retain(|name, _| ours.contains_key(name) || !shape::ONLY_IN_STATUS.contains(&name.as_str()));
    Some(Value::Object(lay_over(generation, told, ours)))
}

/// The webhook that told the outcome on record, as it came; `None` where a read told it.
pub fn original_webhook<'b>(
    generation: &Generation,
    bodies: &'b [ProviderBody],
) -> Option<(&'b [u8], &'b DeliveryHeaders)> {
    bodies.iter().find_map(|body| {
        let (body, _) = agreeing(generation, std::slice::from_ref(body))?;
        match &body.channel {
            Channel::Webhook(headers) => Some((body.bytes.as_slice(), headers)),
            Channel::Read => None,
        }
    })
}

/// The prompt, where the provider repeated it.
fn prompt(bodies: &[ProviderBody]) -> Option<String> {
    bodies.iter().find_map(|body| {
        let fields = fields(&body.bytes)?;
        fields.get("prompt")?.as_str().filter(|prompt| !prompt.is_empty()).map(str::to_owned)
    })
}

/// What was told, with id and status as they are on record, and what it left out added.
fn lay_over(generation: &Generation, told: Map<String, Value>, ours: Map<String, Value>) -> Map<String, Value> {
    let family = generation.family;
    let mut body = told;
    for (name, value) in ours {
        let known = [family.id_field, "status"].contains(&name.as_str());
        match body.get_mut(&name) {
            Some(said) if !known => fill(family, said, &name, value),
            Some(_) | None => drop(body.insert(name, value)),
        }
    }
    body
}

/// Whether the provider's own client can read a field of a family's status (provider.md 13): what it cannot would break it whole.
fn is_readable(family: &Family, field: &str, value: &Value) -> bool {
    match (family.path, field) {
        (_, "prompt") => value.is_string(),
        (_, field) if field == family.result_field => value.is_string(),
        ("veo", "created_at" | "completed_at") | ("gemini" | "chatgpt-images", "message") => value.is_string(),
        ("veo", "error") => value.is_object(),
        ("veo", "seed") => value.is_i64() || value.is_u64(),
        (path, "model" | "description") if path.starts_with("kling") => value.is_string(),
        _ => true,
    }
}

/// Fills what is null, what no client could read, and what should be a link and is none.
fn fill(family: &Family, said: &mut Value, name: &str, ours: Value) {
    let replaced = match (&*said, name) {
        (Value::Null, _) => true,
        // A text where an object is wanted is the reason all the same.
        (Value::String(text), "error") if family.path == "veo" => {
            *said = json!({"message": text});
            return;
        }
        (said, name) if !is_readable(family, name, said) => true,
        (Value::String(link), "video_url" | "image_url" | "result_image_url") => !ours.is_null() && !is_link(link),
        (Value::Object(output), "output") => {
            let links = output.get("video_urls").and_then(Value::as_array);
            let has_one = links.is_some_and(|links| links.iter().filter_map(Value::as_str).any(is_link));
            if let (false, Value::Object(output), Value::Object(ours)) = (has_one, &mut *said, ours) {
                output.extend(ours);
            }
            return;
        }
        _ => false,
    };
    if replaced {
        *said = ours;
    }
}

/// Every link of the result, the one that is shown as `result_url` first.
pub fn results(generation: &Generation, bodies: &[ProviderBody]) -> Vec<ResultLink> {
    let Some(first) = generation.state.result_url() else { return Vec::new() };
    let usual = match generation.family.medium {
        Medium::Video => LinkType::Video,
        Medium::Image => LinkType::Image,
    };
    let mut links = vec![ResultLink { url: first.to_owned(), r#type: usual }];
    let Some((_, told)) = agreeing(generation, bodies) else { return links };
    let nested = told.get("output").and_then(Value::as_object);
    for (name, value) in told.iter().chain(nested.into_iter().flatten()) {
        let Some(kind) = link_type(name) else { continue };
        let several = value.as_array().map_or(std::slice::from_ref(value), Vec::as_slice);
        for one in several {
            let link = one.as_str().or_else(|| one.get("url")?.as_str()).map(str::trim).filter(|link| is_link(link));
            if let Some(url) = link.filter(|url| links.iter().all(|known| known.url != *url)) {
                links.push(ResultLink { url: url.to_owned(), r#type: kind });
            }
        }
    }
    links.truncate(LINKS_MAX);
    links
}

/// More than any family makes.
const LINKS_MAX: usize = 32;

/// What is behind the links of a field; `None` for a field that holds no result.
fn link_type(field: &str) -> Option<LinkType> {
    match field {
        "video_url" | "video_urls" | "videos" => Some(LinkType::Video),
        "image_url" | "image_urls" | "images" | "result_image_url" | "result_image_urls" | "last_frame_url" => {
            Some(LinkType::Image)
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::domain::family::FAMILIES;
    use crate::domain::generation::{Request, Via};
    use crate::domain::id::{GenerationId, ProviderId};
    use crate::domain::outcome::{Failure, Learned, Source, Verification};
    use crate::domain::time::Time;

    const AT: Time = Time::from_ms(1_795_428_000_000);
    const LINK: &str = "https://cdn.example/1.mp4";

    fn generation(path: &str, state: State) -> Generation {
        let new = Generation::new(GenerationId::fresh(AT), Family::of(path).unwrap(), Via::Gateway, AT);
        Generation { provider_id: ProviderId::parse("p-1").ok(), state, ..new }
    }

    fn completed() -> State {
        let learned = Learned { source: Source::Webhook, verification: Verification::Token, recovered: false };
        State::Completed { at: AT, result_url: LINK.to_owned(), learned }
    }

    fn failed(code: &str) -> State {
        let learned = Learned { source: Source::Webhook, verification: Verification::Token, recovered: false };
        State::Failed { at: AT, error: Failure { code: Some(code.to_owned()), text: None }, learned }
    }

    fn read(body: &Value) -> ProviderBody {
        ProviderBody { bytes: body.to_string().into_bytes(), channel: Channel::Read }
    }

    fn webhook_of(body: &Value) -> ProviderBody {
        let channel = Channel::Webhook(DeliveryHeaders::default());
        ProviderBody { bytes: body.to_string().into_bytes(), channel }
    }

    #[test]
    fn what_was_told_is_passed_on_with_every_field_and_what_is_missing_is_added() {
        let body = json!({
            "task_uuid": "p-1", "status": "completed", "model": "theirs", "error": null, "unheard_of": {"a": [1.5, null]},
            "output": {"video_urls": [LINK, "https://cdn.example/2.mp4"], "last_frame_url": "https://cdn.example/f.png"},
        });
        let seedance = generation("seedance", completed());
        let mut expected = body.clone();
        expected["prompt"] = json!("");
        assert_eq!(status(&seedance, &[read(&body)], None).unwrap(), expected);
        let body = json!({"generation_id": "p-1", "status": "processing", "progress_pct": 40, "prompt": "theirs"});
        let sora = generation("sora", State::Processing);
        let told = status(&sora, &[read(&body)], None).unwrap();
        assert_eq!((&told["progress_pct"], &told["prompt"]), (&json!(40), &json!("theirs")));
        assert_eq!((&told["video_url"], &told["created_at"]), (&Value::Null, &json!("2026-11-23T10:00:00Z")));
    }

    #[test]
    fn only_a_word_that_agrees_with_the_record_is_passed_on() {
        let body = |status: &str, url: Option<&str>| json!({"generation_id": "p-1", "status": status, "video_url": url, "x": 1});
        let other_id = json!({"generation_id": "p-2", "status": "completed", "video_url": LINK, "x": 1});
        let passed = |state: State, bodies: &[ProviderBody]| {
            status(&generation("kling/o3-video", state), bodies, None).unwrap()["x"] == json!(1)
        };
        for (state, body, expected) in [
            (completed(), body("completed", Some(LINK)), true),
            (completed(), body("completed", Some("https://cdn.example/1.mp4?signed=again")), true),
            (completed(), body("completed", Some("https://cdn.example/other.mp4")), false),
            (completed(), body("failed", None), false),
            (completed(), body("processing", None), false),
            (completed(), other_id, false),
            (failed("TIMEOUT"), body("failed", None), true),
            (failed("TIMEOUT"), body("completed", Some(LINK)), false),
            (State::Processing, body("processing", None), true),
            (State::Processing, body("rendering", None), true),
            (State::Pending, body("completed", Some(LINK)), false),
            (State::Pending, body("failed", None), false),
            (State::Lost { at: AT }, body("processing", None), true),
        ] {
            assert_eq!(passed(state.clone(), &[read(&body)]), expected, "{state:?} {body}");
        }
        assert!(!passed(completed(), &[]));
        let cut = ProviderBody { bytes: br#"{"generation_id":"p-1","sta"#.to_vec(), channel: Channel::Read };
        assert!(passed(completed(), &[cut, read(&body("completed", Some(LINK)))]), "the one before it is whole");
    }

    #[test]
    fn what_the_provider_left_out_is_filled_and_what_it_said_stays() {
        let o3 = Generation {
            request: Request {
                model: Some("kling_o3".to_owned()),
                duration_seconds: Some(5),
                prompt: Some("ours".to_owned()),
            },
            ..generation("kling/o3-video", failed("TIMEOUT"))
        };
        let told = status(
            &o3,
            &[read(&json!({"generation_id": "p-1", "status": "FAILED", "prompt": null, "model": "m"}))],
            None,
        );
        let told = told.unwrap();
        assert_eq!((&told["status"], &told["prompt"], &told["model"]), (&json!("failed"), &json!("ours"), &json!("m")));
        assert_eq!((&told["message"], &told["video_url"]), (&json!("TIMEOUT"), &Value::Null));
        assert!(told["description"].is_string());
        let gemini = generation("gemini", completed());
        let body = json!({"id": "p-1", "status": "completed", "image_url": LINK, "result_image_url": "None", "prompt": 7,
                          "callback_url": "https://recoup.example/webhooks/gemini/gen_x.mac"});
        let told = status(&gemini, &[read(&body)], None).unwrap();
        assert_eq!((&told["task_uuid"], &told["id"], &told["prompt"]), (&json!("p-1"), &json!("p-1"), &json!("")));
        assert_eq!((&told["result_image_url"], told.get("callback_url")), (&json!(LINK), None));
        let seedance = generation("seedance", completed());
        let body = json!({"task_uuid": "p-1", "status": "completed", "video_url": LINK, "output": {"last_frame_url": "https://x/f"}});
        let told = status(&seedance, &[read(&body)], None).unwrap();
        assert_eq!(told["output"], json!({"last_frame_url": "https://x/f", "video_urls": [LINK]}));
        let veo = generation("veo", failed("TIMEOUT"));
        let body = json!({"generation_id": "p-1", "status": "failed", "error": "TIMEOUT"});
        assert_eq!(status(&veo, &[read(&body)], None).unwrap()["error"], json!({"message": "TIMEOUT"}));
    }

    #[test]
    fn prompt_and_seed_are_found_wherever_they_were_told() {
        let veo = generation("veo", completed());
        let earlier = json!({"generation_id": "p-1", "status": "processing", "prompt": "a boat"});
        let last = json!({"generation_id": "p-1", "status": "completed", "video_url": LINK});
        let bodies = [read(&last), read(&earlier)];
        let told = status(&veo, &bodies, Some(br#"{"generation_id":"p-1","seed":77}"#)).unwrap();
        assert_eq!((&told["prompt"], &told["seed"]), (&json!("a boat"), &json!(77)));
        let own = json!({"generation_id": "p-1", "status": "completed", "video_url": LINK, "seed": 5});
        assert_eq!(status(&veo, &[read(&own)], Some(br#"{"seed":77}"#)).unwrap()["seed"], json!(5), "the later word");
        assert_eq!(status(&veo, &[], Some(b"<html>")).unwrap()["seed"], Value::Null);
    }

    #[test]
    fn a_caller_gets_the_webhook_that_told_and_else_what_a_read_told() {
        let o3 = generation("kling/o3-video", completed());
        let told = json!({"generation_id": "p-1", "status": "completed", "video_url": LINK, "x": 1});
        let lie = json!({"generation_id": "p-1", "status": "failed"});
        let bodies = [read(&told), webhook_of(&lie), webhook_of(&told)];
        let (bytes, _) = original_webhook(&o3, &bodies).unwrap();
        assert_eq!(bytes, told.to_string().as_bytes());
        assert_eq!(original_webhook(&o3, &bodies[..2]), None);
        let written = webhook(&o3, &[read(&told)]).unwrap();
        assert_eq!((&written["x"], &written["message"], written.get("description")), (&json!(1), &Value::Null, None));
    }

    #[test]
    fn every_link_is_found_once_and_the_shown_one_first() {
        let body = json!({
            "task_uuid": "p-1", "status": "completed", "video_url": LINK, "last_frame_url": "not a link", "cover": "https://x/c",
            "images": [{"url": "https://x/1.png"}, "https://x/2.png", 7],
            "output": {"video_urls": [LINK, "https://x/2.mp4"], "last_frame_url": "https://x/f.png"},
        });
        let found = results(&generation("seedance", completed()), &[read(&body)]);
        let found: Vec<_> = found.iter().map(|link| (link.url.as_str(), link.r#type.as_str())).collect();
        let expected = [
            (LINK, "video"),
            ("https://x/1.png", "image"),
            ("https://x/2.png", "image"),
            ("https://x/f.png", "image"),
            ("https://x/2.mp4", "video"),
        ];
        assert_eq!(found, expected);
        let alone = [ResultLink { url: LINK.to_owned(), r#type: LinkType::Image }];
        assert_eq!(results(&generation("gemini", completed()), &[]), alone, "its body was removed");
        assert_eq!(results(&generation("gemini", failed("X")), &[]), []);
    }

    /// Any JSON, not too deep.
    fn any_value() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i32>().prop_map(Value::from),
            Just(json!(LINK)),
            "[ -~]{0,12}".prop_map(Value::from),
        ];
        leaf.prop_recursive(3, 24, 4, |inner| {
            let fields = proptest::collection::btree_map("video_urls|url|message|code|x", inner.clone(), 0..4);
            prop_oneof![
                proptest::collection::vec(inner, 0..4).prop_map(Value::from),
                fields.prop_map(|fields| Value::Object(fields.into_iter().collect())),
            ]
        })
    }

    proptest! {
        /// Whatever the provider says in whatever field: the client gets its texts, and nothing else is changed.
        #[test]
        fn no_body_breaks_it_and_what_was_said_stays(
            nth in 0..FAMILIES.len(),
            mut said in proptest::collection::btree_map(
                "prompt|video_url|image_url|result_image_url|output|error|message|model|seed|description|images|unheard_of",
                any_value(), 0..6),
        ) {
            let family = FAMILIES.get(nth).unwrap();
            let wanted = ["video_url", "image_url", "result_image_url", "model", "description", "message", "error", "seed"];
            said.insert(family.id_field.to_owned(), json!("p-1"));
            said.insert("status".to_owned(), json!("processing"));
            let body = Value::Object(said.clone().into_iter().collect());
            let running = generation(family.path, State::Processing);
            let told = status(&running, &[read(&body)], None).unwrap();
            for required in [family.id_field, "status", "prompt"] {
                prop_assert!(told[required].is_string(), "{required}: {told}");
            }
            for field in wanted.into_iter().filter_map(|field| Some((field, told.get(field)?))) {
                prop_assert!(field.1.is_null() || is_readable(family, field.0, field.1), "{field:?}: {told}");
            }
            if let Some(unheard_of) = said.get("unheard_of") {
                prop_assert_eq!(&told["unheard_of"], unheard_of);
            }
            prop_assert_eq!(results(&running, &[read(&body)]).len(), 0);
            prop_assert!(webhook(&running, &[read(&body)]).is_some());
        }

        #[test]
        fn no_bytes_make_it_panic(bytes in proptest::collection::vec(any::<u8>(), 0..256)) {
            let bodies = [ProviderBody { bytes: bytes.clone(), channel: Channel::Read }];
            let done = generation("veo", completed());
            prop_assert_eq!(&status(&done, &bodies, Some(&bytes)).unwrap()["video_url"], &json!(LINK));
            prop_assert_eq!(results(&done, &bodies).len(), 1);
        }
    }
}
