//! The drop-in for the provider: contract section 6 row by row, over real sockets.

use std::sync::Arc;
use std::time::Duration;

use recoup::sandbox::{Fault, Plan};
use serde_json::{Value, json};
use tokio::io::AsyncWriteExt;
use tokio::sync::Notify;
use url::Url;

use crate::raw::{RawProvider, Then, http, sold};
use crate::support::{Answer, KEY, O3, PROVIDER_KEY, World, completed, text};

const GENERATE: &str = "/gateway/v1/kling/o3-video/generate";

/// A world whose provider is at that address.
async fn with_provider(url: &str) -> World {
    let url = Url::parse(url).unwrap();
    World::with(move |config| {
        config.provider.base_url = url;
        config.provider.request_timeout.0 = Duration::from_millis(700);
    })
    .await
}

fn header<'a>(answer: &'a Answer, name: &str) -> Option<&'a str> {
    answer.headers.get(name).map(|value| value.to_str().unwrap())
}

impl World {
    async fn submit(&self, body: &Value) -> Answer {
        self.post(GENERATE, body).await
    }

    async fn submit_with(&self, headers: &[(&str, &str)], body: impl Into<reqwest::Body>) -> Answer {
        let mut request = self.http.post(format!("{}{GENERATE}", self.url)).bearer_auth(KEY);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        Self::read(request.body(body).send().await.unwrap()).await
    }

    /// The generation an answer names.
    async fn named(&self, answer: &Answer) -> Value {
        self.generation(header(answer, "recoup-generation").unwrap()).await
    }
}

fn order() -> Value {
    order_of("a paper boat")
}

/// An equal one after a lost answer would be a repeat, and not sent.
fn order_of(prompt: &str) -> Value {
    json!({"prompt": prompt, "model": "kling_o3_pro", "duration": "10"})
}

#[tokio::test]
async fn a_purchase_is_passed_through_and_followed_to_its_outcome() {
    let world = World::new().await;
    world.sandbox.plan_next(Plan::completed().taking(Duration::from_mins(2)));
    let answer = world.submit_with(&[("recoup-metadata", r#"{"user":"42"}"#)], order().to_string()).await;
    assert_eq!((answer.status, header(&answer, "recoup-error-code")), (201, None));
    let bought = world.sandbox.ledger().remove(0);
    assert_eq!(answer.body, json!({"generation_id": bought.id, "status": "pending", "price": "0.6000"}));
    let shown = world.named(&answer).await;
    for (field, value) in [
        ("generation_id", json!(bought.id)),
        ("status", json!("pending")),
        ("price", json!("0.6000")),
        ("credits", json!("charged")),
        ("model", json!("kling_o3_pro")),
        ("duration_seconds", json!(10)),
        ("prompt", json!("a paper boat")),
        ("submitted_via", json!("gateway")),
        ("submitted_at", json!("2026-11-23T10:00:00Z")),
        ("expected_by", json!("2026-11-23T10:07:30Z")),
        ("metadata", json!({"user": "42"})),
    ] {
        assert_eq!(shown[field], value, "{field}");
    }
    assert!(bought.callback_url.unwrap().starts_with(&format!("{}/webhooks/{O3}/gen_", world.url)));
    world.advance_s(120).await;
    let shown = world.generation(&bought.id).await;
    assert_eq!(
        (&shown["status"], &shown["verification"], &shown["checks"]),
        (&json!("completed"), &json!("token"), &json!(0))
    );
    assert_eq!(shown["credits"], "delivered");
    let entry = world.timeline(&bought.id, "submission").await.remove(0);
    assert_eq!((&entry["result"], &entry["http_status"]), (&json!("accepted"), &json!(201)));
}

#[tokio::test]
async fn a_refusal_comes_back_unchanged_under_a_normalised_code_and_costs_nothing() {
    let world = World::new().await;
    for (fault, status, code) in [
        (Fault::NoCredits { form: 1 }, 402, "INSUFFICIENT_CREDITS"),
        (Fault::NoCredits { form: 2 }, 402, "INSUFFICIENT_CREDITS"),
        (Fault::DetailText, 422, "INVALID_PARAMETERS"),
        (Fault::DetailList, 422, "INVALID_PARAMETERS"),
        (Fault::DetailObject, 422, "INVALID_PARAMETERS"),
        (Fault::Unauthorized { shape: 1 }, 401, "UNAUTHORIZED"),
        (Fault::Unauthorized { shape: 2 }, 401, "UNAUTHORIZED"),
        (Fault::Unauthorized { shape: 3 }, 401, "UNAUTHORIZED"),
        (Fault::RateLimited { retry_after: Some(7) }, 429, "RATE_LIMITED"),
        (Fault::Answer { status: 400, body: json!({"message": "NEVER_SEEN_BEFORE"}) }, 400, "NEVER_SEEN_BEFORE"),
    ] {
        world.sandbox.fault_next_submit(fault.clone());
        let direct = {
            world.sandbox.fault_next_submit(fault.clone());
            let url = format!("{}/v1/{O3}/generate", world.provider_url);
            World::read(world.http.post(url).bearer_auth(PROVIDER_KEY).json(&order()).send().await.unwrap()).await
        };
        let answer = world.submit(&order()).await;
        assert_eq!((answer.status, &answer.body), (status, &direct.body), "{fault:?}");
        assert_eq!(header(&answer, "recoup-error-code"), Some(code), "{fault:?}");
        assert_eq!(header(&answer, "retry-after"), header(&direct, "retry-after"));
        let shown = world.named(&answer).await;
        assert_eq!(
            (&shown["status"], &shown["credits"], &shown["source"]),
            (&json!("rejected"), &json!("not_charged"), &json!("gateway"))
        );
        assert_eq!((&shown["error"]["code"], &shown["next_check_at"]), (&json!(code), &Value::Null));
    }
    for (request, code) in [
        (json!({"prompt": "x", "duration": "7"}), "INVALID_DURATION"),
        (json!({"prompt": "x", "model": "kling_o9"}), "INVALID_MODEL"),
        (json!({"prompt": "x", "images_url": ["https://a/1.png"], "images_base64": ["AA=="]}), "MIXED_IMAGE_INPUTS"),
        (json!({"prompt": "x", "images_url": ["1", "2", "3", "4", "5", "6"]}), "TOO_MANY_IMAGES"),
        (json!({"prompt": ""}), "INVALID_PARAMETERS"),
    ] {
        let answer = world.submit(&request).await;
        assert_eq!(header(&answer, "recoup-error-code"), Some(code), "{}", answer.body);
        let id = text(&world.named(&answer).await["id"]);
        let diagnosis = world.get(&format!("/v1/generations/{id}/diagnosis")).await.expect(200);
        assert!(text(&diagnosis["summary"]).contains(code), "{diagnosis}");
        assert!(
            text(&diagnosis["answers"][0]["text"]).contains(answer.body["detail"].as_str().unwrap()),
            "{diagnosis}"
        );
    }
    let unknown = world.get("/v1/error-codes/NEVER_SEEN_BEFORE").await.expect(200);
    assert_eq!((&unknown["known"], &unknown["count"]), (&json!(false), &json!(1)));
    assert!(world.sandbox.ledger().is_empty(), "nothing was bought");
}

#[tokio::test]
async fn without_a_connection_nothing_is_bought_and_it_is_safe_to_send_again() {
    let closed = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    for url in [format!("http://{closed}"), "http://nowhere.invalid".to_owned(), format!("https://{closed}")] {
        let world = with_provider(&url).await;
        let answer = world.submit_with(&[("idempotency-key", "k")], order().to_string()).await;
        let shown = world.named(&answer).await;
        assert_eq!((&shown["status"], &shown["credits"]), (&json!("rejected"), &json!("not_charged")));
        assert_eq!((&shown["error"]["code"], &shown["error"]["known"]), (&json!("PROVIDER_UNREACHABLE"), &json!(true)));
        assert!(shown["error"]["text"].as_str().unwrap().contains("could not connect"), "{shown}");
        let problem = answer.problem(502, "PROVIDER_UNREACHABLE");
        assert!(!problem["detail"].as_str().unwrap().contains(&closed.to_string()));
        // The key is free again: it is tried once more.
        let again = world.submit_with(&[("idempotency-key", "k")], order().to_string()).await;
        assert_eq!(header(&again, "idempotency-replayed"), None);
        assert_ne!(header(&again, "recoup-generation"), shown["id"].as_str());
        again.problem(502, "PROVIDER_UNREACHABLE");
    }
}

#[tokio::test]
async fn when_the_answer_is_lost_it_may_have_been_charged_and_is_never_sent_again() {
    let never = Arc::new(Notify::new());
    for (name, then) in [
        ("cut before the answer", Then::Close),
        ("cut in the head", Then::Answer(b"HTTP/1.1 201 Crea".to_vec())),
        (
            "cut in the body",
            Then::Answer(b"HTTP/1.1 201 Created\r\ncontent-length: 99\r\n\r\n{\"generation_id\"".to_vec()),
        ),
        ("no HTTP", Then::Answer(b"hello\r\n\r\n".to_vec())),
        ("hanging", Then::Wait(Arc::clone(&never), Vec::new())),
        ("408", Then::Answer(http("408 Request Timeout", "", "{}"))),
        ("a redirect", Then::Answer(http("307 Temporary Redirect", "location: http://127.0.0.1:1/\r\n", ""))),
        ("201 that is no JSON", Then::Answer(http("201 Created", "", "<html>"))),
        ("201 without an id", Then::Answer(http("201 Created", "", r#"{"status":"pending","price":"0.1500"}"#))),
        ("200 with nothing", Then::Answer(http("200 OK", "", ""))),
        ("a 5xx that breaks off", Then::Answer(b"HTTP/1.1 500 X\r\ncontent-length: 99\r\n\r\n{".to_vec())),
    ] {
        let provider = RawProvider::start(then).await;
        let world = with_provider(&provider.url).await;
        let answer = world.submit_with(&[("idempotency-key", "k")], order().to_string()).await;
        let shown = world.named(&answer).await;
        assert_eq!(
            (&shown["status"], &shown["attention"], &shown["credits"]),
            (&json!("unconfirmed"), &json!("unconfirmed"), &json!("at_risk")),
            "{name}"
        );
        assert!(shown["next_check_at"].is_string(), "{name}");
        answer.problem(504, "SUBMIT_UNCONFIRMED");
        let hurried = [("idempotency-key", "k"), ("prefer", "wait=0")];
        world.submit_with(&hurried, order().to_string()).await.problem(504, "SUBMIT_UNCONFIRMED");
        world.advance(Duration::from_hours(2)).await;
        assert_eq!(provider.purchases().len(), 1, "{name}: sent once");
        // The webhook's token brings the id, and the outcome with it.
        let webhook = completed("p-1", "https://x/v.mp4");
        world.webhook(&provider.purchases()[0].callback_url(), webhook).await.expect(200);
        let healed = world.generation("p-1").await;
        assert_eq!(
            (&healed["id"], &healed["status"], &healed["attention"]),
            (&shown["id"], &json!("completed"), &Value::Null)
        );
    }
}

#[tokio::test]
async fn an_error_of_the_provider_is_passed_on_and_counts_as_maybe_bought() {
    let world = World::new().await;
    let detail = |text: &str| json!({"detail": text});
    for (fault, status, body, code) in [
        (Fault::ServerError, 500, detail("Internal Server Error"), Some("INTERNAL_ERROR")),
        (Fault::Html, 502, json!("<html><body>502 Bad Gateway</body></html>"), None),
        (
            Fault::Answer { status: 500, body: detail("OPENAI_DECLINED") },
            500,
            detail("OPENAI_DECLINED"),
            Some("OPENAI_DECLINED"),
        ),
        (Fault::Answer { status: 503, body: detail("later") }, 503, detail("later"), Some("SERVICE_UNAVAILABLE")),
    ] {
        world.sandbox.fault_next_submit(Fault::Bought(Box::new(fault.clone())));
        world.sandbox.plan_next(Plan::completed().taking(Duration::from_mins(3)));
        let answer = world.submit(&order_of(&format!("{fault:?}"))).await;
        assert_eq!((answer.status, &answer.body), (status, &body), "{fault:?}");
        assert_eq!(header(&answer, "recoup-error-code"), code);
        let shown = world.named(&answer).await;
        assert_eq!((&shown["status"], &shown["credits"]), (&json!("unconfirmed"), &json!("at_risk")), "{fault:?}");
        world.advance_s(180).await;
        assert_eq!(world.named(&answer).await["status"], "completed", "it was bought, and its webhook says so");
    }
    assert_eq!(world.sandbox.ledger().len(), 4);
}

#[tokio::test]
async fn an_unconfirmed_purchase_is_healed_by_the_caller_or_by_a_person() {
    let world = World::new().await;
    world.sandbox.fault_next_submit(Fault::Cut);
    let first = text(&world.named(&world.submit(&order()).await).await["id"]);
    let bought = world.sandbox.ledger().remove(0);
    let shown = world
        .patch(&format!("/v1/generations/{first}"), &json!({"generation_id": bought.id, "price": "0.6000"}))
        .await
        .expect(200);
    assert_eq!(
        (&shown["status"], &shown["attention"], &shown["credits"]),
        (&json!("pending"), &Value::Null, &json!("charged"))
    );

    world.sandbox.fault_next_submit(Fault::ServerError);
    let second = text(&world.named(&world.submit(&order_of("a kite")).await).await["id"]);
    let shown = world.post(&format!("/v1/generations/{second}/refunds"), &json!({})).await.expect(200);
    assert_eq!((&shown["credits"], &shown["attention"]), (&json!("refunded"), &Value::Null));
    world.sandbox.fault_next_submit(Fault::ServerError);
    let third = text(&world.named(&world.submit(&order_of("a hat")).await).await["id"]);
    world.advance(Duration::from_hours(25)).await;
    assert_eq!(world.generation(&second).await["attention"], Value::Null, "nobody has to look any more");
    let lost = world.generation(&third).await;
    assert_eq!(
        (&lost["status"], &lost["attention"], &lost["credits"]),
        (&json!("lost"), &json!("lost"), &json!("at_risk"))
    );
}

#[tokio::test]
async fn a_caller_that_hangs_up_changes_nothing() {
    let go = Arc::new(Notify::new());
    let provider = RawProvider::start(Then::Wait(Arc::clone(&go), sold("p-1"))).await;
    let mut world = World::with({
        let url = Url::parse(&provider.url).unwrap();
        move |config| config.provider.base_url = url
    })
    .await;
    let address = world.url.strip_prefix("http://").unwrap().to_owned();
    let body = order().to_string();
    // Gone before the body was whole: nothing was bought.
    let head = format!(
        "POST {GENERATE} HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {KEY}\r\ncontent-length: {}\r\n\r\n",
        body.len()
    );
    let mut stream = tokio::net::TcpStream::connect(&address).await.unwrap();
    stream.write_all(format!("{head}{}", &body[..9]).as_bytes()).await.unwrap();
    drop(stream);
    // Gone right after it, and again while the provider thinks.
    let mut stream = tokio::net::TcpStream::connect(&address).await.unwrap();
    stream.write_all(format!("{head}{body}").as_bytes()).await.unwrap();
    provider.first().await;
    drop(stream);
    let list = world.get("/v1/generations").await.expect(200);
    assert_eq!(list["data"].as_array().unwrap().len(), 1);
    assert_eq!(list["data"][0]["status"], "submitting", "the intent is on record while the provider thinks");
    assert_eq!(list["data"][0]["credits"], "charged");
    let id = text(&list["data"][0]["id"]);
    let wait = world.get(&format!("/v1/generations/{id}?wait=0")).await.expect(200);
    assert_eq!(wait["generation_id"], Value::Null);
    // A shutdown waits for the answer, too.
    let (stopped, ()) = tokio::join!(world.stop(), async { go.notify_waiters() });
    let () = stopped;
    world.resume().await;
    let shown = world.generation(&id).await;
    assert_eq!(
        (&shown["status"], &shown["generation_id"], &shown["price"]),
        (&json!("pending"), &json!("p-1"), &json!("0.1500"))
    );
    assert_eq!(provider.purchases().len(), 1);
}

#[tokio::test]
async fn the_webhook_may_come_before_the_201() {
    let webhook = completed("p-1", "https://x/v.mp4");
    let provider = RawProvider::start(Then::WebhookFirst { body: webhook, answer: sold("p-1") }).await;
    let world = with_provider(&provider.url).await;
    let answer = world.submit(&order()).await;
    assert_eq!(answer.status, 201);
    let shown = world.named(&answer).await;
    assert_eq!(
        (&shown["status"], &shown["price"], &shown["credits"]),
        (&json!("completed"), &json!("0.1500"), &json!("delivered"))
    );
}

#[tokio::test]
async fn two_purchases_with_one_id_are_a_contradiction_and_neither_is_overwritten() {
    let provider = RawProvider::start(Then::Answer(sold("p-1"))).await;
    let world = with_provider(&provider.url).await;
    let first = world.submit(&order()).await;
    let second = world.submit(&order()).await;
    assert_eq!((first.status, second.status), (201, 201));
    let shown = world.named(&first).await;
    assert_eq!((&shown["status"], &shown["attention"]), (&json!("pending"), &Value::Null));
    let shown = world.named(&second).await;
    assert_eq!(
        (&shown["status"], &shown["attention"], &shown["generation_id"]),
        (&json!("unconfirmed"), &json!("conflict"), &Value::Null)
    );
}

#[tokio::test]
async fn the_body_is_passed_on_byte_for_byte_on_a_fresh_connection() {
    let provider = RawProvider::start(Then::Answer(sold("p-1"))).await;
    let world = with_provider(&provider.url).await;
    let images = "QUJD".repeat(17_000_000);
    for (sent, before, after) in [
        (
            r#"{"prompt":"\u00e9\ud83d\ude00 \/","duration":"5","seed":1.0e2,"n":12345678901234567890123}"#.to_owned(),
            r#"{"callback_url":""#,
            r#"","prompt":"\u00e9\ud83d\ude00 \/","duration":"5","seed":1.0e2,"n":12345678901234567890123}"#.to_owned(),
        ),
        (
            r#" { "z" : 1, "callback_url" : "https://me.example/hook?a=1", "a" : [ ] } "#.to_owned(),
            r#" { "z" : 1, "callback_url" : ""#,
            r#"", "a" : [ ] } "#.to_owned(),
        ),
        (
            format!(r#"{{"prompt":"x","images_base64":["{images}"]}}"#),
            r#"{"callback_url":""#,
            format!(r#"","prompt":"x","images_base64":["{images}"]}}"#),
        ),
    ] {
        let answer = world.submit_with(&[("content-type", "application/json; charset=utf-8")], sent).await;
        assert_eq!(answer.status, 201, "{}", answer.body);
        let seen = provider.seen().pop().unwrap();
        let body = String::from_utf8(seen.body.clone()).unwrap();
        let expected = format!("{before}{}{after}", seen.callback_url());
        assert!(body == expected, "{} bytes, {} expected", body.len(), expected.len());
        assert_eq!(seen.header("authorization"), Some(format!("Bearer {PROVIDER_KEY}").as_str()));
        assert_eq!(seen.header("content-type"), Some("application/json; charset=utf-8"));
        assert!(!seen.head.contains(KEY));
    }
    let evidence = world.get("/v1/generations/p-1/evidence").await.expect(200);
    assert!(!evidence.to_string().contains("/webhooks/"), "a callback URL is a credential");
}

#[tokio::test]
async fn the_key_goes_nowhere_else_and_never_comes_back() {
    let elsewhere = RawProvider::start(Then::Answer(sold("p-2"))).await;
    let location = format!("location: {}/v1/x\r\n", elsewhere.url);
    let provider = RawProvider::start(Then::Answer(http("308 Permanent Redirect", &location, ""))).await;
    with_provider(&provider.url).await.submit(&order()).await.problem(504, "SUBMIT_UNCONFIRMED");
    assert_eq!((provider.purchases().len(), elsewhere.seen().len()), (1, 0));

    let echo = format!(r#"{{"detail":"you sent Bearer {PROVIDER_KEY}"}}"#);
    let provider = RawProvider::start(Then::Answer(http("400 Bad Request", "", &echo))).await;
    let world = with_provider(&provider.url).await;
    let answer = world.submit(&order()).await;
    assert_eq!(answer.body, json!({"detail": "you sent Bearer ***"}));
    assert!(!world.named(&answer).await.to_string().contains(PROVIDER_KEY));
}

#[tokio::test]
async fn when_the_intent_cannot_be_kept_nothing_is_bought() {
    use sqlx::{ConnectOptions, Executor};
    let world = World::new().await;
    let file = world.folder.path().join("recoup.db");
    let mut other = sqlx::sqlite::SqliteConnectOptions::new().filename(file).connect().await.unwrap();
    other.execute("BEGIN IMMEDIATE").await.unwrap();
    let answer = world.submit(&order()).await;
    assert!(answer.headers.contains_key("retry-after"));
    assert!(!answer.headers.contains_key("recoup-generation"));
    answer.problem(503, "UNAVAILABLE");
    assert!(world.sandbox.ledger().is_empty());
    other.execute("ROLLBACK").await.unwrap();
    assert_eq!(world.submit(&order()).await.status, 201);
}

#[tokio::test]
async fn what_cannot_be_a_purchase_is_refused_before_anything_is_sent() {
    let world = World::with(|config| config.gateway.max_body = bytesize::ByteSize::kib(64)).await;
    for (headers, body, status, code) in [
        (&[][..], "[]".to_owned(), 400, "INVALID_JSON"),
        (&[], "{".to_owned(), 400, "INVALID_JSON"),
        (&[], r#"{"callback_url":"nowhere"}"#.to_owned(), 422, "INVALID_BODY"),
        (&[], format!(r#"{{"prompt":"{}"}}"#, "x".repeat(70_000)), 413, "BODY_TOO_LARGE"),
        (&[("idempotency-key", "")], "{}".to_owned(), 400, "INVALID_HEADER"),
        (&[("idempotency-key", "a"), ("idempotency-key", "b")], "{}".to_owned(), 400, "INVALID_HEADER"),
        (&[("recoup-metadata", "no")], "{}".to_owned(), 400, "INVALID_HEADER"),
        (&[("recoup-metadata", r#"{"a":1}"#)], "{}".to_owned(), 400, "INVALID_HEADER"),
    ] {
        world.submit_with(headers, body).await.problem(status, code);
    }
    let long = "x".repeat(256);
    world.submit_with(&[("idempotency-key", &long)], "{}").await.problem(400, "INVALID_HEADER");
    assert_eq!(world.get("/v1/generations").await.expect(200)["data"], json!([]));
    assert!(world.sandbox.ledger().is_empty());
}

#[tokio::test]
async fn everything_else_is_404_and_wants_a_key() {
    use recoup::config::{ApiKey, Scope};
    let world = World::with(|config| {
        let key = |name: &str, scope| ApiKey {
            name: name.to_owned(),
            secret: recoup::secret::Secret::new(name),
            scopes: vec![scope],
        };
        config.api.keys = vec![key("a reader's key", Scope::Read), key("a buyer's key", Scope::Submit)];
    })
    .await;
    for path in [
        "/gateway/v1/kling/o3-video",
        "/gateway/v1/kling/o9/generate",
        "/gateway/v2/kling/generate",
        "/gateway/v1/generate",
        "/gateway/v1/kling/o3-video/generations/a%2Fb",
        "/gateway/v1/kling/o3-video/generations/a%20b",
        "/gateway/v1/data/prices",
    ] {
        world.get(path).await.problem(404, "NOT_FOUND");
        world.send(reqwest::Method::GET, path, None, None).await.problem(401, "UNAUTHORIZED");
    }
    world.get(GENERATE).await.problem(404, "NOT_FOUND");
    world.send(reqwest::Method::POST, GENERATE, None, Some(&order())).await.problem(401, "UNAUTHORIZED");
    world.send(reqwest::Method::POST, GENERATE, Some("a reader's key"), Some(&order())).await.problem(403, "FORBIDDEN");
    let path = "/gateway/v1/kling/o3-video/generations/x";
    world.send(reqwest::Method::GET, path, Some("a buyer's key"), None).await.problem(403, "FORBIDDEN");
    assert_eq!(world.reads(), 0);
}

#[tokio::test]
async fn an_unknown_id_is_asked_about_once_and_taken_on_when_the_provider_knows_it() {
    let world = World::new().await;
    world.sandbox.plan_next(Plan::completed().taking(Duration::ZERO));
    let bought = world.http.post(format!("{}/v1/{O3}/generate", world.provider_url)).bearer_auth(PROVIDER_KEY);
    let bought = World::read(bought.json(&json!({"prompt": "a kite"})).send().await.unwrap()).await.expect(201);
    let path = format!("/gateway/v1/{O3}/generations/{}", text(&bought["generation_id"]));
    let looks = futures_util::future::join_all((0..20).map(|_| world.get(&path))).await;
    for look in looks {
        assert!(look.headers.contains_key("recoup-generation"));
        let body = look.expect(200);
        assert_eq!((&body["status"], &body["prompt"]), (&json!("completed"), &json!("a kite")));
    }
    assert_eq!(world.reads(), 1);
    let adopted = world.generation(bought["generation_id"].as_str().unwrap()).await;
    assert_eq!(
        (&adopted["submitted_at"], &adopted["checks"], &adopted["source"]),
        (&Value::Null, &json!(1), &json!("check"))
    );

    let nowhere = format!("/gateway/v1/{O3}/generations/nobodys-id");
    for _ in 0..5 {
        let problem = world.get(&nowhere).await.problem(404, "GENERATION_NOT_FOUND");
        assert_eq!(problem["detail"], "Generation not found");
    }
    world.sandbox.fault_next_status(Fault::ServerError);
    world.get(&format!("/gateway/v1/{O3}/generations/another-id")).await.problem(502, "PROVIDER_SILENT");
    assert_eq!(world.get("/v1/generations").await.expect(200)["data"].as_array().unwrap().len(), 1);
}

#[tokio::test]
async fn what_was_sold_reaches_the_caller_even_when_it_cannot_be_kept_yet_and_is_kept_later() {
    use sqlx::{ConnectOptions, Executor};
    let go = Arc::new(Notify::new());
    let provider = RawProvider::start(Then::Wait(Arc::clone(&go), sold("p-1"))).await;
    let url = Url::parse(&provider.url).unwrap();
    let world = World::with(move |config| config.provider.base_url = url).await;
    let file = world.folder.path().join("recoup.db");
    let mut other = sqlx::sqlite::SqliteConnectOptions::new().filename(file).connect().await.unwrap();
    let request = order();
    let (answer, ()) = tokio::join!(world.submit(&request), async {
        provider.first().await;
        // The database is taken away while the provider thinks.
        other.execute("BEGIN IMMEDIATE").await.unwrap();
        go.notify_waiters();
    });
    assert_eq!((answer.status, header(&answer, "recoup-unrecorded")), (201, Some("true")));
    assert_eq!(answer.body["generation_id"], "p-1");
    let id = header(&answer, "recoup-generation").unwrap();
    assert_eq!(world.generation(id).await["status"], "submitting", "reads go on");
    other.execute("ROLLBACK").await.unwrap();
    let mut changes = 0;
    while world.generation(id).await["status"] != "pending" {
        world.clock.advance(Duration::from_secs(1));
        changes += 1;
        assert!(changes < 100_000, "it is never kept");
    }
    assert_eq!(world.generation("p-1").await["price"], "0.1500");
    assert_eq!(provider.purchases().len(), 1);
}
