//! The simulated provider held to provider.md, over real sockets.

use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};

mod strict;

use super::*;
use crate::clock::ManualClock;
use crate::domain::money::Usd;
use crate::domain::time::Time;

struct Provider {
    sandbox: Arc<Sandbox>,
    clock: Arc<ManualClock>,
    url: String,
    http: reqwest::Client,
    _serving: tokio::task::JoinSet<Result<(), io::Error>>,
}

impl Provider {
    async fn start(settings: Settings) -> Self {
        let clock = Arc::new(ManualClock::new(Time::from_ms(1_795_428_000_000)));
        let shared: Arc<dyn Clock> = clock.clone();
        let sandbox = Sandbox::new(settings, shared).unwrap();
        let listener = tokio::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let mut serving = tokio::task::JoinSet::new();
        serving.spawn(Arc::clone(&sandbox).serve(listener, CancellationToken::new()));
        Self { sandbox, clock, url, http: http_client(Duration::from_secs(5)).unwrap(), _serving: serving }
    }

    async fn buy(&self, family: &str, request: Value) -> (u16, Value) {
        let url = format!("{}/v1/{family}/generate", self.url);
        read(self.http.post(url).bearer_auth("key").json(&request).send().await.unwrap()).await
    }

    async fn status(&self, family: &str, id: &str) -> (u16, Value) {
        let url = format!("{}/v1/{family}/generations/{id}", self.url);
        read(self.http.get(url).bearer_auth("key").send().await.unwrap()).await
    }
}

async fn read(response: reqwest::Response) -> (u16, Value) {
    let status = response.status().as_u16();
    let text = response.text().await.unwrap();
    (status, serde_json::from_str(&text).unwrap_or(Value::String(text)))
}

fn keys(value: &Value) -> Vec<&str> {
    value.as_object().unwrap().keys().map(String::as_str).collect()
}

#[tokio::test]
async fn o3_video_runs_as_documented() {
    let provider = Provider::start(Settings::default()).await;
    let (status, bought) =
        provider.buy("kling/o3-video", json!({"prompt": "a boat", "duration": "10", "model": "kling_o3_pro"})).await;
    assert_eq!((status, keys(&bought)), (201, vec!["generation_id", "price", "status"]));
    assert_eq!((&bought["status"], &bought["price"]), (&json!("pending"), &json!("0.6000")));
    let id = bought["generation_id"].as_str().unwrap();
    let (_, pending) = provider.status("kling/o3-video", id).await;
    assert_eq!(keys(&pending), ["generation_id", "model", "prompt", "status", "video_url"], "no message");
    assert_eq!((&pending["status"], &pending["model"]), (&json!("pending"), &json!("kling-o3-video-10s-pro")));
    provider.clock.advance(Duration::from_secs(30));
    assert_eq!(provider.status("kling/o3-video", id).await.1["status"], "processing");
    provider.clock.advance(Duration::from_secs(450));
    let (_, done) = provider.status("kling/o3-video", id).await;
    assert_eq!(done["status"], "completed");
    assert!(done["video_url"].as_str().unwrap().contains("kling/o3-video"));
    assert_eq!(provider.status("kling/o3-video", "nobody").await, (404, json!({"detail": "Generation not found"})));
    assert_eq!(provider.status("veo", "nobody").await, (404, json!({"detail": "TASK_NOT_FOUND"})));
}

#[tokio::test]
async fn other_families_use_their_own_fields() {
    let provider = Provider::start(Settings::default()).await;
    let (_, gemini) = provider.buy("gemini", json!({"prompt": "a boat"})).await;
    assert_eq!(keys(&gemini), ["price", "status", "task_uuid"]);
    let (_, seedance) = provider.buy("seedance", json!({"prompt": "a boat", "duration": 5})).await;
    assert_eq!(keys(&seedance), ["error", "model", "output", "status", "task_uuid"], "no price");
    provider.clock.advance(Duration::from_hours(1));
    let (_, done) = provider.status("seedance", seedance["task_uuid"].as_str().unwrap()).await;
    assert!(done["output"]["video_urls"][0].is_string());
    let (_, done) = provider.status("gemini", gemini["task_uuid"].as_str().unwrap()).await;
    assert!(done["result_image_url"].is_string());
}

#[tokio::test]
async fn bad_purchases_are_refused_as_documented() {
    let provider = Provider::start(Settings { funds: Usd::from_micros(200_000), ..Settings::default() }).await;
    for (request, word) in [
        (json!({}), "prompt"),
        (json!({"prompt": "x".repeat(2_501)}), "prompt"),
        (json!({"prompt": "x", "model": "kling_o4"}), "kling_o3_pro"),
        (json!({"prompt": "x", "duration": 5}), "5, 10, 15"),
        (json!({"prompt": "x", "duration": "7"}), "5, 10, 15"),
        (json!({"prompt": "x", "images_url": ["a"], "images_base64": ["b"]}), "together"),
        (json!({"prompt": "x", "images_url": ["a", "a", "a", "a", "a", "a"]}), "got 6"),
    ] {
        let (status, body) = provider.buy("kling/o3-video", request).await;
        assert_eq!(status, 422);
        assert!(body["detail"].as_str().unwrap().contains(word), "{body}");
    }
    assert_eq!(provider.buy("no/family", json!({"prompt": "x"})).await.0, 404);
    assert_eq!(provider.buy("kling/o3-video", json!({"prompt": "x"})).await.0, 201);
    let (status, body) = provider.buy("kling/o3-video", json!({"prompt": "x"})).await;
    assert_eq!((status, body), (402, json!({"detail": "INSUFFICIENT_CREDITS"})));
    assert_eq!(provider.sandbox.ledger().len(), 1);
}

#[tokio::test]
async fn money_comes_back_for_what_failed() {
    let provider = Provider::start(Settings::default()).await;
    let balance = async || {
        let request = provider.http.get(format!("{}/v1/data/balance", provider.url)).bearer_auth("key");
        read(request.send().await.unwrap()).await.1["balance"].as_str().unwrap().to_owned()
    };
    assert_eq!(balance().await, "1000.0000");
    provider.sandbox.plan_next(Plan::failed("TIMEOUT").taking(Duration::from_secs(10)));
    provider.buy("kling/o3-video", json!({"prompt": "x"})).await;
    assert_eq!(balance().await, "999.8500");
    provider.clock.advance(Duration::from_secs(71));
    assert_eq!(balance().await, "1000.0000");
}

#[tokio::test]
async fn a_webhook_is_tried_five_times_and_never_again() {
    let provider = Provider::start(Settings::default()).await;
    let plan = Plan::completed().taking(Duration::ZERO);
    provider.sandbox.plan_next(plan);
    // Nobody listens there.
    provider.buy("kling/o3-video", json!({"prompt": "x", "callback_url": "http://127.0.0.1:1/hook"})).await;
    for attempts in 1..=5 {
        provider.sandbox.until(|ledger| ledger[0].attempts.len() == attempts).await;
        provider.clock.advance(Duration::from_secs(30));
    }
    provider.clock.advance(Duration::from_hours(1));
    let attempts = provider.sandbox.ledger()[0].attempts.clone();
    assert!(attempts.len() == 5 && attempts.iter().all(|attempt| attempt.status.is_none()));
    let gaps: Vec<_> = attempts.windows(2).map(|pair| pair[1].at.since(pair[0].at)).collect();
    assert_eq!(gaps, [Duration::from_secs(30); 4]);
}

#[tokio::test]
async fn every_fault_can_be_seen_from_outside() {
    let provider = Provider::start(Settings { status_reads_per_minute: None, ..Settings::default() }).await;
    for (fault, status) in [
        (Fault::Unauthorized { shape: 1 }, 401),
        (Fault::Unauthorized { shape: 2 }, 401),
        (Fault::NoCredits { form: 1 }, 402),
        (Fault::NoCredits { form: 2 }, 402),
        (Fault::RateLimited { retry_after: Some(7) }, 429),
        (Fault::DetailText, 422),
        (Fault::DetailList, 422),
        (Fault::DetailObject, 422),
        (Fault::ServerError, 500),
        (Fault::Html, 502),
        (Fault::Empty, 200),
        (Fault::Garbage, 200),
        (Fault::WrongId, 200),
        (Fault::Redirect { location: "https://example.com/".to_owned() }, 307),
        (Fault::Huge { bytes: 100_000 }, 200),
        (Fault::Answer { status: 418, body: json!({}) }, 418),
    ] {
        provider.sandbox.fault_next_status(fault.clone());
        assert_eq!(provider.status("kling/o3-video", "x").await.0, status, "{fault:?}");
    }
    provider.sandbox.fault_next_status(Fault::Cut);
    let url = format!("{}/v1/kling/o3-video/generations/x", provider.url);
    let whole = async { provider.http.get(url).bearer_auth("key").send().await?.bytes().await };
    assert!(whole.await.is_err(), "the connection breaks in the middle");
}

#[tokio::test]
async fn an_answer_can_get_lost_after_the_purchase_was_made() {
    let provider = Provider::start(Settings::default()).await;
    for fault in [Fault::Cut, Fault::Garbage, Fault::Empty] {
        let before = provider.sandbox.ledger().len();
        provider.sandbox.fault_next_submit(fault.clone());
        let url = format!("{}/v1/kling/o3-video/generate", provider.url);
        let request = provider.http.post(url).bearer_auth("key").json(&json!({"prompt": "x"}));
        drop(request.send().await);
        assert_eq!(provider.sandbox.ledger().len(), before + 1, "{fault:?}: it was bought");
    }
    provider.sandbox.fault_next_submit(Fault::DetailText);
    provider.buy("kling/o3-video", json!({"prompt": "x"})).await;
    assert_eq!(provider.sandbox.ledger().len(), 3, "refused: nothing was bought");
}

#[tokio::test]
async fn reads_beyond_the_limit_are_refused() {
    let provider = Provider::start(Settings { status_reads_per_minute: Some(3), ..Settings::default() }).await;
    let read = async || provider.status("kling/o3-video", "x").await.0;
    assert_eq!([read().await, read().await, read().await, read().await], [404, 404, 404, 429]);
    provider.clock.advance(Duration::from_mins(1));
    assert_eq!(read().await, 404);
}

#[tokio::test]
async fn keys_are_checked_in_the_documented_shapes() {
    let provider = Provider::start(Settings { api_key: Some("right".to_owned()), ..Settings::default() }).await;
    let url = format!("{}/v1/kling/o3-video/generations/x", provider.url);
    let (status, body) = read(provider.http.get(&url).send().await.unwrap()).await;
    assert_eq!((status, &body["error"]), (401, &json!("Unauthorized")));
    let (status, body) = read(provider.http.get(&url).bearer_auth("wrong").send().await.unwrap()).await;
    assert_eq!((status, &body["detail"]), (401, &json!("Invalid API key")));
    assert_eq!(read(provider.http.get(&url).bearer_auth("right").send().await.unwrap()).await.0, 404);
}

#[tokio::test]
async fn the_controls_work_over_http() {
    let provider = Provider::start(Settings::default()).await;
    let plan = json!({"fate": {"failed": {"reason": "TIMEOUT"}}, "takes_ms": 0, "webhooks": []});
    let order = json!({"on": "status", "fault": "server_error"});
    for (path, body) in [("plans", plan), ("faults", order)] {
        let answer = provider.http.post(format!("{}/sandbox/{path}", provider.url)).json(&body).send().await.unwrap();
        assert_eq!(answer.status(), 204, "{path}");
    }
    let (_, bought) = provider.buy("kling/o1-photo", json!({"prompt": "x"})).await;
    let id = bought["generation_id"].as_str().unwrap();
    assert_eq!(provider.status("kling/o1-photo", id).await.0, 500);
    let (_, failed) = provider.status("kling/o1-photo", id).await;
    assert_eq!((&failed["status"], &failed["message"]), (&json!("failed"), &json!("TIMEOUT")));
    let (_, ledger) = read(provider.http.get(format!("{}/sandbox/ledger", provider.url)).send().await.unwrap()).await;
    assert_eq!((&ledger[0]["id"], &ledger[0]["family"]), (&json!(id), &json!("kling/o1-photo")));
}
