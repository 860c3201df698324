//! Events delivered: signed, once per change, retried, parked, sent again; and never to an inner address.

use std::net::Ipv4Addr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use recoup::config::{Config, Endpoint, Span};
use recoup::sandbox::Plan;
use recoup::secret::Secret;
use serde_json::{Value, json};
use tokio::sync::{Notify, watch};
use url::Url;

use crate::support::{World, completed, text};

pub(crate) const SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
const OLD_SECRET: &str = "whsec_AAECAwQFBgcICQoLDA0ODxAREhMUFRYX";

#[derive(Clone, Debug)]
pub(crate) struct Got {
    headers: HeaderMap,
    body: String,
}

impl Got {
    pub(crate) fn header(&self, name: &str) -> String {
        self.headers[name].to_str().unwrap().to_owned()
    }

    pub(crate) fn has(&self, name: &str) -> bool {
        self.headers.contains_key(name)
    }

    pub(crate) fn body(&self) -> &str {
        &self.body
    }

    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap()
    }
}

#[derive(Clone, Copy, Debug)]
enum Answer {
    Status(u16),
    RetryAfter(u64),
    Redirect,
    Hang,
}

/// An endpoint that writes down what it gets and answers as told.
#[derive(Clone)]
pub(crate) struct Recorder {
    pub url: String,
    got: Arc<Mutex<Vec<Got>>>,
    answer: Arc<watch::Sender<Answer>>,
    arrived: Arc<Notify>,
}

impl Recorder {
    pub(crate) async fn start() -> Self {
        let listener = tokio::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let recorder = Self {
            url: format!("http://{}/hook", listener.local_addr().unwrap()),
            got: Arc::default(),
            answer: Arc::new(watch::Sender::new(Answer::Status(204))),
            arrived: Arc::default(),
        };
        let serving = recorder.clone();
        let router = axum::Router::new().fallback(move |headers: HeaderMap, body: String| {
            let serving = serving.clone();
            async move { serving.receive(headers, body).await }
        });
        #[expect(clippy::disallowed_methods, reason = "ends with the test's runtime")]
        tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
        recorder
    }

    async fn receive(&self, headers: HeaderMap, body: String) -> Response {
        self.got.lock().unwrap().push(Got { headers, body });
        self.arrived.notify_waiters();
        // One that hangs does so until it is told another answer.
        let mut answers = self.answer.subscribe();
        let answer = *answers.wait_for(|answer| !matches!(answer, Answer::Hang)).await.unwrap();
        match answer {
            Answer::Status(status) => StatusCode::from_u16(status).unwrap().into_response(),
            Answer::RetryAfter(seconds) => {
                (StatusCode::SERVICE_UNAVAILABLE, [("retry-after", seconds.to_string())]).into_response()
            }
            Answer::Redirect => (StatusCode::TEMPORARY_REDIRECT, [("location", self.url.clone())]).into_response(),
            Answer::Hang => unreachable!("it waited for another"),
        }
    }

    fn answers(&self, answer: Answer) {
        self.answer.send_replace(answer);
    }

    pub(crate) fn got(&self) -> Vec<Got> {
        self.got.lock().unwrap().clone()
    }

    pub(crate) async fn after(&self, count: usize) -> Vec<Got> {
        loop {
            let arrived = self.arrived.notified();
            let got = self.got();
            if got.len() >= count {
                return got;
            }
            arrived.await;
        }
    }
}

fn endpoint(url: &str, types: &[&str]) -> Endpoint {
    Endpoint {
        url: Url::parse(url).unwrap(),
        secret: Secret::new(SECRET),
        secrets: Vec::new(),
        types: types.iter().map(|kind| (*kind).to_owned()).collect(),
    }
}

fn sending(endpoints: Vec<Endpoint>) -> impl FnOnce(&mut Config) {
    move |config| {
        config.events.allow_private_addresses = true;
        config.events.endpoints = endpoints;
    }
}

async fn settle(world: &World, id: &str) {
    let (_, url) = world.prepare().await;
    world.webhook(&url, completed(id, "https://x/v.mp4")).await.expect(200);
}

/// The newest event, once its one dispatch is as wanted.
async fn dispatch(world: &World, wanted: impl Fn(&Value) -> bool) -> Value {
    loop {
        let list = world.get("/v1/events").await.expect(200);
        if let Some(event) = list["data"].get(0) {
            let one = world.get(&format!("/v1/events/{}", text(&event["id"]))).await.expect(200);
            if one["dispatches"].get(0).is_some_and(&wanted) {
                return one;
            }
        }
    }
}

/// Waits until so many events are delivered.
async fn delivered(world: &World, count: usize) {
    while count_delivered(world).await < count {}
}

async fn count_delivered(world: &World) -> usize {
    let list = world.get("/v1/events?state=delivered&limit=200").await.expect(200);
    list["data"].as_array().unwrap().len()
}

/// What the specification says a receiver has to do.
pub(crate) fn verify(got: &Got, secret: &str) -> bool {
    use hmac::{Hmac, KeyInit, Mac};
    let key = STANDARD.decode(secret.strip_prefix("whsec_").unwrap()).unwrap();
    let mut mac = Hmac::<sha2::Sha256>::new_from_slice(&key).unwrap();
    mac.update(format!("{}.{}.{}", got.header("webhook-id"), got.header("webhook-timestamp"), got.body).as_bytes());
    let expected = format!("v1,{}", STANDARD.encode(mac.finalize().into_bytes()));
    got.header("webhook-signature").split(' ').any(|signature| signature == expected)
}

#[tokio::test]
async fn an_outcome_arrives_signed_with_the_generation_in_it() {
    let recorder = Recorder::start().await;
    let picky = Recorder::start().await;
    let mut rotating = endpoint(&recorder.url, &["generation.*"]);
    rotating.secret = Secret::default();
    rotating.secrets = vec![Secret::new(SECRET), Secret::new(OLD_SECRET)];
    let world = World::with(sending(vec![rotating, endpoint(&picky.url, &["generation.failed"])])).await;
    settle(&world, "p-1").await;
    let got = recorder.after(1).await.remove(0);
    assert!(verify(&got, SECRET) && verify(&got, OLD_SECRET));
    assert!(!verify(&got, "whsec_BBECAwQFBgcICQoLDA0ODxAREhMUFRYX"));
    let event = dispatch(&world, |dispatch| dispatch["state"] == "delivered").await;
    assert_eq!(got.header("webhook-id"), text(&event["id"]));
    let body = got.json();
    assert_eq!(
        (&body["type"], &body["sequence"], &body["timestamp"]),
        (&json!("generation.completed"), &json!(1), &json!("2026-11-23T10:00:00Z"))
    );
    assert_eq!(body["data"], world.generation_in_lists("p-1").await);
    assert_eq!(event["dispatches"].as_array().unwrap().len(), 1, "the other endpoint wants failures only");
    assert!(picky.got().is_empty());
    assert_eq!((&event["state"], &event["dispatches"][0]["http_status"]), (&json!("delivered"), &json!(204)));
}

#[tokio::test]
async fn what_fails_is_tried_again_under_the_same_id_and_is_parked_in_the_end() {
    let recorder = Recorder::start().await;
    let schedule = [5, 30].map(|seconds| recoup::config::Span(Duration::from_secs(seconds)));
    let world = World::with({
        let sending = sending(vec![endpoint(&recorder.url, &["generation.*"])]);
        move |config| {
            sending(config);
            config.events.retry_schedule = schedule.to_vec();
        }
    })
    .await;
    recorder.answers(Answer::Status(500));
    settle(&world, "p-1").await;
    let attempts = |count: u64| move |dispatch: &Value| dispatch["attempts"] == count;
    let event = dispatch(&world, attempts(1)).await;
    assert_eq!((&event["state"], &event["dispatches"][0]["http_status"]), (&json!("pending"), &json!(500)));
    recorder.answers(Answer::Redirect);
    world.advance_s(6).await;
    let event = dispatch(&world, attempts(2)).await;
    assert!(text(&event["dispatches"][0]["said"]).contains("redirect"));
    world.advance_s(34).await;
    let event = dispatch(&world, attempts(3)).await;
    assert_eq!((&event["state"], &event["dispatches"][0]["next_attempt_at"]), (&json!("dead"), &Value::Null));
    let got = recorder.got();
    assert_eq!(got.len(), 3);
    assert!(
        got.iter().all(|attempt| attempt.header("webhook-id") == text(&event["id"]) && attempt.body == got[0].body)
    );
    assert_ne!(got[0].header("webhook-timestamp"), got[2].header("webhook-timestamp"), "fresh on each attempt");
    // Sent again: one by one, and in bulk after a dry run.
    recorder.answers(Answer::Status(500));
    settle(&world, "p-2").await;
    for count in 1..=2 {
        dispatch(&world, attempts(count)).await;
        world.advance_s(36).await;
    }
    dispatch(&world, attempts(3)).await;
    recorder.answers(Answer::Status(200));
    let wish =
        |dry_run: bool| json!({"filter": {"state": "dead", "type": ["generation.completed"]}, "dry_run": dry_run});
    let counted = world.post("/v1/events/redeliveries", &wish(true)).await.expect(200);
    assert_eq!(counted, json!({"events": 2, "dry_run": true}));
    let one = format!("/v1/events/{}/redeliveries", text(&event["id"]));
    world.post(&one, &json!({})).await.expect(202);
    delivered(&world, 1).await;
    let sent = world.post("/v1/events/redeliveries", &wish(false)).await.expect(202);
    assert_eq!(sent["events"], 1);
    delivered(&world, 2).await;
    world
        .post("/v1/events/redeliveries", &json!({"filter": {"state": "lost"}, "dry_run": true}))
        .await
        .problem(422, "INVALID_BODY");
    world.post("/v1/events/redeliveries", &json!({})).await.problem(422, "INVALID_BODY");
    world.post("/v1/events/evt_1/redeliveries", &json!({})).await.problem(404, "NOT_FOUND");
}

#[tokio::test]
async fn a_hanging_endpoint_and_a_broken_one_hold_nobody_back() {
    let (hanging, broken, healthy) = (Recorder::start().await, Recorder::start().await, Recorder::start().await);
    hanging.answers(Answer::Hang);
    broken.answers(Answer::Status(500));
    let all = [&hanging, &broken, &healthy].map(|recorder| endpoint(&recorder.url, &["generation.*"]));
    let world = World::with(sending(all.to_vec())).await;
    for n in 0..200 {
        settle(&world, &format!("p-{n}")).await;
    }
    let got = healthy.after(200).await;
    let mut ids: Vec<_> = got.iter().map(|got| got.header("webhook-id")).collect();
    ids.sort();
    ids.dedup();
    assert_eq!((got.len(), ids.len()), (200, 200));
    assert!(got.iter().all(|got| verify(got, SECRET)));
    assert!(hanging.got().len() <= 64, "its own queue only");
}

#[tokio::test]
async fn retry_after_lengthens_and_410_disables_until_the_next_start() {
    let recorder = Recorder::start().await;
    let mut world = World::with(sending(vec![endpoint(&recorder.url, &["generation.*"])])).await;
    recorder.answers(Answer::RetryAfter(600));
    settle(&world, "p-1").await;
    let event = dispatch(&world, |dispatch| dispatch["attempts"] == 1).await;
    assert_eq!(event["dispatches"][0]["next_attempt_at"], "2026-11-23T10:10:00Z");
    recorder.answers(Answer::Status(410));
    world.advance_s(600).await;
    dispatch(&world, |dispatch| dispatch["attempts"] == 2).await;
    recorder.answers(Answer::Status(200));
    settle(&world, "p-2").await;
    world.advance(Duration::from_hours(3)).await;
    assert_eq!(recorder.got().len(), 2, "nothing more is sent");
    world.restart().await;
    let got = recorder.after(4).await;
    let told: std::collections::BTreeSet<_> =
        got[2..].iter().map(|got| text(&got.json()["data"]["generation_id"])).collect();
    assert_eq!(told, ["p-1", "p-2"].map(str::to_owned).into());
}

#[tokio::test]
async fn a_clock_that_jumps_back_puts_no_event_to_sleep() {
    let recorder = Recorder::start().await;
    let world = World::with(sending(vec![endpoint(&recorder.url, &["generation.*"])])).await;
    recorder.answers(Answer::Status(500));
    settle(&world, "p-1").await;
    dispatch(&world, |dispatch| dispatch["attempts"] == 1).await;
    recorder.answers(Answer::Status(200));
    let ten_years = 10 * 365 * 24 * 3_600_000;
    world.clock.jump(-ten_years);
    // It is noticed a minute after the dispatcher fell asleep, and a day is the longest that an endpoint can ask for.
    let mut minutes = 0;
    while count_delivered(&world).await == 0 {
        world.advance(Duration::from_mins(10)).await;
        minutes += 10;
    }
    assert!(minutes < 2 * 24 * 60, "{minutes}");
}

#[tokio::test]
async fn the_callers_own_callback_url_is_told_in_the_providers_shape_whoever_learned_it() {
    let caller = Recorder::start().await;
    let world = World::with(sending(Vec::new())).await;
    let buy = async |plan: Plan| {
        world.sandbox.plan_next(plan.taking(Duration::from_mins(2)));
        let body = json!({"prompt": "x", "callback_url": caller.url});
        text(&world.post("/gateway/v1/kling/o3-video/generate", &body).await.expect(201)["generation_id"])
    };
    let told = buy(Plan::completed()).await;
    let failed = buy(Plan::failed("IMAGE_INACCESSIBLE")).await;
    let lost = buy(Plan::completed().lost()).await;
    world.advance_s(120).await;
    caller.after(2).await;
    // Written down, too: a lease that runs out while an attempt is under way sends it again.
    delivered(&world, 2).await;
    world.advance_s(90).await;
    let got = caller.after(3).await;
    for (id, status, message) in [
        (&told, "completed", Value::Null),
        (&failed, "failed", json!("IMAGE_INACCESSIBLE")),
        (&lost, "completed", Value::Null),
    ] {
        let one = got.iter().find(|got| got.json()["generation_id"] == json!(id)).unwrap();
        let body = one.json();
        let mut fields: Vec<_> = body.as_object().unwrap().keys().cloned().collect();
        fields.sort();
        assert_eq!(fields, ["generation_id", "message", "model", "status", "video_url"]);
        assert_eq!((&body["status"], &body["message"]), (&json!(status), &message));
        assert_eq!(body["video_url"].is_string(), status == "completed");
        assert!(one.headers.contains_key("webhook-id") && !one.headers.contains_key("webhook-signature"));
    }
    assert_eq!(caller.got().len(), 3);
}

#[tokio::test]
async fn a_caller_whose_server_hangs_holds_back_no_other_caller() {
    let (hanging, healthy) = (Recorder::start().await, Recorder::start().await);
    hanging.answers(Answer::Hang);
    let world = World::with(sending(Vec::new())).await;
    for n in 0..100 {
        let caller = if n % 10 == 9 { &healthy } else { &hanging };
        let body = json!({"prompt": "x", "callback_url": caller.url});
        world.sandbox.plan_next(Plan::completed().taking(Duration::ZERO));
        world.post("/gateway/v1/kling/o3-video/generate", &body).await.expect(201);
    }
    while healthy.got().len() < 10 {
        world.advance_s(1).await;
    }
    assert_eq!(hanging.got().len(), 8, "its own share only");
    // What stepped aside is not forgotten.
    hanging.answers(Answer::Status(200));
    while count_delivered(&world).await < 100 {
        world.advance_s(15).await;
    }
    let told: std::collections::BTreeSet<_> = hanging.got().iter().map(|got| got.header("webhook-id")).collect();
    assert_eq!(told.len(), 90);
}

#[tokio::test]
async fn an_endpoint_that_is_no_longer_configured_keeps_nothing_from_being_removed() {
    let broken = Recorder::start().await;
    broken.answers(Answer::Status(500));
    let mut world = World::with(|config| {
        sending(vec![endpoint(&broken.url, &["generation.*"])])(config);
        config.retention.generations = Span(Duration::from_hours(1));
    })
    .await;
    settle(&world, "p-1").await;
    broken.after(1).await;
    for _ in 0..3 {
        world.advance(Duration::from_hours(1)).await;
    }
    world.get("/v1/generations/p-1").await.expect(200);
    world.config.events.endpoints.clear();
    world.restart().await;
    let mut hours = 0;
    while world.get("/v1/generations/p-1").await.status == 200 {
        world.advance(Duration::from_hours(1)).await;
        hours += 1;
        assert!(hours < 1_000, "nobody will ever be sent its event, and it stays");
    }
}

#[tokio::test]
async fn nothing_is_sent_to_an_inner_address() {
    // Counts connections, whatever is said over them.
    let canary = tokio::net::TcpListener::bind((Ipv4Addr::UNSPECIFIED, 0)).await.unwrap();
    let port = canary.local_addr().unwrap().port();
    let world = World::with(|config| config.events.retry_schedule.truncate(1)).await;
    for host in
        ["127.0.0.1", "localhost", "0x7f.1", "2130706433", "127.1", "[::ffff:127.0.0.1]", "localhost.", "0.0.0.0"]
    {
        for scheme in ["http", "https"] {
            let body = json!({"prompt": "x", "callback_url": format!("{scheme}://{host}:{port}/hook")});
            world.sandbox.plan_next(Plan::completed().taking(Duration::ZERO));
            world.post("/gateway/v1/kling/o3-video/generate", &body).await.expect(201);
        }
    }
    for _ in 0..2 {
        world.advance_s(60).await;
    }
    while world.get("/v1/events?state=dead").await.expect(200)["data"].as_array().unwrap().len() < 16 {
        world.clock.advance(Duration::from_secs(1));
    }
    assert!(futures_util::poll!(std::pin::pin!(canary.accept())).is_pending(), "somebody called the canary");
    let events = world.get("/v1/events").await.expect(200);
    for event in events["data"].as_array().unwrap() {
        let one = world.get(&format!("/v1/events/{}", text(&event["id"]))).await.expect(200);
        let said = text(&one["dispatches"][0]["said"]);
        // A name with a dot behind it is not found everywhere.
        let refused = ["egress rule", "https://", "could not connect"].iter().any(|word| said.contains(word));
        assert!(refused, "{said}");
    }
}
