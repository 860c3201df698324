//! As strict and as patient as the provider's own Python client shows the real one to be (provider.md section 13).

use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;

use super::*;
use crate::domain::family::FAMILIES;

/// What the provider's own client sends of each family at the least.
fn least(path: &str) -> Value {
    match path {
        "veo" => json!({"prompt": "a paper boat at sea"}),
        _ => json!({"prompt": "a boat"}),
    }
}

fn with(mut request: Value, extra: &Value) -> Value {
    request.as_object_mut().unwrap().extend(extra.as_object().unwrap().clone());
    request
}

impl Provider {
    async fn list(&self, family: &str, query: &str) -> (u16, Value) {
        let url = format!("{}/v1/{family}/generations{query}", self.url);
        read(self.http.get(url).bearer_auth("key").send().await.unwrap()).await
    }

    fn post(&self, family: &str) -> reqwest::RequestBuilder {
        self.http.post(format!("{}/v1/{family}/generate", self.url)).bearer_auth("key")
    }
}

#[tokio::test]
async fn what_the_clients_types_refuse_is_refused() {
    let provider = Provider::start(Settings::default()).await;
    let wrong: &[(&str, Value, u16, &str)] = &[
        ("kling/o3-video", json!({"prompt": 5}), 422, "prompt must be a string"),
        ("kling/o3-video", json!({"model": null}), 422, "kling_o3_pro"),
        ("kling/o3-video", json!({"aspect_ratio": "4:3"}), 422, "16:9"),
        ("kling/o3-video", json!({"keep_original_sound": "yes"}), 422, "boolean"),
        ("kling/o3-video", json!({"images_url": "https://a/1.png"}), 422, "list"),
        ("kling/o3-video", json!({"first_frame_url": "https://a/1.png"}), 422, "end frame"),
        ("kling/o3-video", json!({"end_frame_base64": "AA=="}), 422, "first frame"),
        ("kling/o3-video", json!({"callback_url": "http://example.com/hook"}), 422, "HTTPS"),
        ("kling/o3-video", json!({"callback_url": "ftp://127.0.0.1/hook"}), 422, "HTTPS"),
        ("kling/o3-video", json!({"callback_url": "hook"}), 422, "HTTPS"),
        ("kling/o3-video", json!({"images_base64": ["A".repeat(13_333_340)]}), 422, "Image 1 exceeds"),
        ("kling", json!({"model": "kling_o3"}), 422, "kling_2.5_turbo"),
        ("kling", json!({"duration": 5}), 422, "5, 10"),
        ("kling", json!({"duration": "15"}), 422, "5, 10"),
        ("kling", json!({"model": "kling_3", "duration": "5"}), 422, "3 to 15"),
        ("kling", json!({"model": "kling_3", "duration": 16}), 422, "3 to 15"),
        ("kling", json!({"cfg_scale": 1.1}), 422, "cfg_scale"),
        ("kling", json!({"cfg_scale": "0.5"}), 422, "number"),
        ("kling", json!({"seed": -1}), 422, "seed"),
        ("kling", json!({"model": "kling_2.1"}), 400, "image_url"),
        ("kling", json!({"model": "kling_3_motion"}), 422, "reference video"),
        ("kling", json!({"image_url": "https://a/1.png", "image_base64": "AA=="}), 422, "together"),
        ("kling/o1-video", json!({"duration": "7"}), 422, "without images"),
        ("kling/o1-video", json!({"images_urls": ["https://a/1.png"], "duration": "11"}), 422, "duration"),
        ("kling/o1-video", json!({"end_frame_image_url": "https://a/1.png"}), 422, "first frame"),
        ("kling/o1-photo", json!({"img_resolution": "4k"}), 422, "1k, 2k"),
        ("kling/o3-photo", json!({"img_resolution": "8k"}), 422, "4k"),
        ("kling/o3-photo", json!({"images_url": vec!["https://a/1.png"; 11]}), 422, "got 11"),
        ("veo", json!({"prompt": "too short"}), 422, "10 to 4000"),
        ("veo", json!({"seed": 1_000_000_001}), 422, "seed"),
        ("veo", json!({"watermark_text": "me"}), 422, "watermark"),
        ("veo", json!({"model": "veo_3_quality", "reference_images": ["AA=="]}), 422, "fast"),
        ("gemini", json!({"quality": "4k"}), 422, "pro and v2"),
        ("gemini", json!({"images": vec!["AA=="; 5]}), 422, "got 5"),
        ("gemini", json!({"temperature": 2}), 422, "temperature"),
        ("chatgpt-images", json!({"prompt": "x".repeat(4_001)}), 400, "4000"),
        ("chatgpt-images", json!({"images": vec!["AA=="; 5]}), 400, "got 5"),
        ("chatgpt-images", json!({"aspect_ratio": "16:9"}), 422, "aspect_ratio"),
    ];
    for (family, extra, status, said) in wrong {
        let (answered, body) = provider.buy(family, with(least(family), extra)).await;
        assert_eq!(answered, *status, "{family} {said}: {body}");
        assert!(body["detail"].as_str().unwrap().contains(said), "{family} {said}: {body}");
    }
    assert!(provider.sandbox.ledger().is_empty());
}

#[tokio::test]
async fn what_the_client_can_send_is_sold() {
    let provider = Provider::start(Settings::default()).await;
    let right: &[(&str, Value)] = &[
        ("kling/o3-video", json!({"callback_url": null, "images_url": null, "unheard_of": [1]})),
        ("kling/o3-video", json!({"first_frame_url": "https://a/1.png", "end_frame_base64": "AA=="})),
        ("kling/o3-video", json!({"callback_url": "http://127.0.0.1:1/hook", "customize_multi_shots": true})),
        ("kling/o3-video", json!({"callback_url": "https://example.com/hook"})),
        ("kling", json!({"model": "kling_3", "duration": 7})),
        ("kling", json!({"model": "kling_2.1", "image_url": "https://a/1.png", "cfg_scale": 1})),
        ("kling", json!({"model": "kling_3_motion", "reference_video_url": "https://a/1.mp4", "duration": "5"})),
        ("kling/o1-video", json!({"images_urls": ["https://a/1.png"], "duration": "7"})),
        ("gemini", json!({"model": "v2", "quality": "4k", "images": vec!["AA=="; 8]})),
        ("veo", json!({"reference_images": ["AA=="], "seed": 7})),
    ];
    for (family, extra) in right {
        let (answered, body) = provider.buy(family, with(least(family), extra)).await;
        assert_eq!(answered, 201, "{family} {extra}: {body}");
    }
    for family in FAMILIES {
        assert_eq!(provider.buy(family.path, least(family.path)).await.0, 201, "{}", family.path);
    }
}

#[tokio::test]
async fn refusals_have_the_familys_own_form() {
    let provider = Provider::start(Settings::default()).await;
    let (_, sora) = provider.buy("sora", json!({"prompt": "x", "callback_url": "http://example.com/token"})).await;
    let expected = json!([{
        "type": "value_error", "loc": ["body", "callback_url"], "msg": "callback_url must be an HTTPS URL",
        "input": "http://example.com/token",
    }]);
    assert_eq!(sora["detail"], expected, "the list repeats what was sent");
    let mixed = json!({"prompt": "x", "image_url": "https://a/1.png", "image_base64": "AA=="});
    let (status, sora) = provider.buy("sora", mixed).await;
    assert_eq!((status, &sora["detail"]), (400, &json!("image_url and image_base64 cannot be used together")));
    let (_, seedance) = provider.buy("seedance", json!({"prompt": "x", "duration": "5"})).await;
    assert_eq!(seedance["detail"]["code"], "INVALID_PARAMETERS");
}

#[tokio::test]
async fn only_json_that_says_so_is_read() {
    let provider = Provider::start(Settings::default()).await;
    let body = r#"{"prompt": "a boat"}"#;
    for (content_type, status) in [
        (None, 422),
        (Some("application/x-www-form-urlencoded"), 422),
        (Some("text/plain"), 422),
        (Some("application/json"), 201),
        (Some("Application/JSON; charset=utf-8"), 201),
        (Some("application/problem+json"), 201),
    ] {
        let mut request = provider.post("kling/o3-video").body(body);
        if let Some(content_type) = content_type {
            request = request.header("content-type", content_type);
        }
        let (answered, said) = read(request.send().await.unwrap()).await;
        assert_eq!(answered, status, "{content_type:?}");
        assert!(status == 201 || said["detail"][0]["input"] == body, "{said}");
    }
    for body in ["{", "[]", "7"] {
        let request = provider.post("kling/o3-video").header("content-type", "application/json").body(body);
        let (answered, said) = read(request.send().await.unwrap()).await;
        assert!(answered == 422 && said["detail"].is_array(), "{body}: {said}");
    }
}

#[tokio::test]
async fn every_family_answers_in_its_strict_fields() {
    let provider = Provider::start(Settings::default()).await;
    let mut bought = Vec::new();
    for family in FAMILIES.iter().filter(|family| family.path != "seedance") {
        let (_, sold) = provider.buy(family.path, least(family.path)).await;
        let id = sold[family.id_field].as_str().unwrap().to_owned();
        assert!(sold["price"].is_string() && sold["status"] == "pending", "{sold}");
        assert_eq!(sold["seed"].is_u64(), family.path == "veo", "{sold}");
        bought.push((family, id, sold));
    }
    let check = async || {
        let mut answers = Vec::new();
        for (family, id, sold) in &bought {
            let (_, status) = provider.status(family.path, id).await;
            assert!(status["prompt"].is_string() && status[family.id_field] == **id, "{status}");
            assert_eq!(status.get("seed"), sold.get("seed"), "{status}");
            answers.push((family.path, status));
        }
        answers
    };
    for (path, status) in check().await {
        assert_eq!(status["status"], "pending");
        assert_eq!(status.get("created_at").is_some(), matches!(path, "kling" | "veo" | "sora"), "{path}");
        assert_eq!(status.get("completed_at").unwrap_or(&Value::Null), &Value::Null, "{path}");
    }
    provider.clock.advance(Duration::from_hours(1));
    for (path, status) in check().await {
        assert_eq!(status["status"], "completed", "{path}");
        let zoned = status["created_at"].as_str().map(|time| time.ends_with('Z'));
        let expected = match path {
            "kling" => Some(true),
            "veo" | "sora" => Some(false),
            _ => None,
        };
        assert_eq!(zoned, expected, "{path}");
    }
    provider.sandbox.plan_next(Plan { description: Some("in words".to_owned()), ..Plan::failed("X") });
    let (_, sold) = provider.buy("veo", least("veo")).await;
    provider.clock.advance(Duration::from_hours(1));
    let (_, failed) = provider.status("veo", sold["generation_id"].as_str().unwrap()).await;
    assert_eq!((&failed["error"], &failed["description"]), (&json!({"message": "X"}), &json!("in words")));
    let motion = json!({"prompt": "x", "model": "kling_3_motion", "reference_video_url": "https://a/1.mp4"});
    assert_eq!(provider.buy("kling", motion).await.1["price"], "calculating");
}

#[tokio::test]
async fn lists_are_bare_arrays_newest_first() {
    let provider = Provider::start(Settings::default()).await;
    let mut ids = Vec::new();
    for n in 0..3 {
        let (_, sold) = provider.buy("kling", json!({"prompt": format!("boat {n}")})).await;
        ids.push(sold["generation_id"].clone());
    }
    let (_, o3) = provider.buy("kling/o3-video", json!({"prompt": "another"})).await;
    let shown = |answer: (u16, Value)| {
        assert_eq!(answer.0, 200);
        answer.1.as_array().unwrap().iter().map(|item| item["generation_id"].clone()).collect::<Vec<_>>()
    };
    let newest: Vec<_> = ids.iter().rev().cloned().collect();
    assert_eq!(shown(provider.list("kling", "").await), newest);
    assert_eq!(shown(provider.list("kling", "/?limit=1&offset=1").await), newest[1..2]);
    let (_, list) = provider.list("kling", "?limit=100").await;
    assert_eq!(list[0], provider.status("kling", newest[0].as_str().unwrap()).await.1);
    for query in ["?limit=0", "?limit=101", "?limit=many", "?offset=-1"] {
        let (status, body) = provider.list("kling", query).await;
        assert_eq!((status, body["detail"].is_array()), (422, true), "{query}");
    }
    for (lists, kling, o3_video) in
        [(Lists::Absent, 404, 404), (Lists::Own, 200, 404), (Lists::AllKling, 200, 404), (Lists::Everywhere, 200, 200)]
    {
        let order = json!({"lists": lists});
        let url = format!("{}/sandbox/settings", provider.url);
        assert_eq!(provider.http.post(url).json(&order).send().await.unwrap().status(), 204);
        assert_eq!(provider.list("kling", "").await.0, kling, "{lists:?}");
        assert_eq!(provider.list("kling/o3-video", "").await.0, o3_video, "{lists:?}");
    }
    provider.sandbox.set_lists(Lists::AllKling);
    assert_eq!(shown(provider.list("kling", "?limit=1").await), [o3["generation_id"].clone()]);
    provider.sandbox.fault_next_list(Fault::ServerError);
    assert_eq!(provider.list("kling", "").await.0, 500);
}

#[tokio::test]
async fn a_list_is_one_read_of_the_minute() {
    let provider = Provider::start(Settings { status_reads_per_minute: Some(2), ..Settings::default() }).await;
    assert_eq!(provider.list("gemini", "").await, (200, json!([])));
    assert_eq!(provider.status("gemini", "x").await.0, 404);
    assert_eq!(provider.list("gemini", "").await.0, 429);
    assert_eq!(provider.sandbox.list_reads().len(), 2);
}

#[tokio::test]
async fn the_bots_own_path_of_a_status_works() {
    let provider = Provider::start(Settings::default()).await;
    let (_, sold) = provider.buy("kling/o3-video", json!({"prompt": "x"})).await;
    let url = format!("{}/v1/kling/o3-video/status/{}", provider.url, sold["generation_id"].as_str().unwrap());
    let (status, body) = read(provider.http.get(url).bearer_auth("key").send().await.unwrap()).await;
    assert_eq!((status, &body["generation_id"]), (200, &sold["generation_id"]));
}

#[tokio::test]
async fn requests_keep_their_ids_and_keys() {
    let provider = Provider::start(Settings::default()).await;
    let buy = async |id: &str, key: &str| {
        let request = provider.post("kling/o3-video").header("x-request-id", id).header("x-idempotency-key", key);
        let answer = request.json(&json!({"prompt": "x"})).send().await.unwrap();
        assert_eq!(answer.headers()["x-request-id"], id);
        read(answer).await.1["generation_id"].clone()
    };
    assert_ne!(buy("1", "order-77").await, buy("2", "order-77").await, "ignored");
    let bought = provider.sandbox.ledger().remove(1).asked;
    assert_eq!((bought.request_id.as_deref(), bought.idempotency_key.as_deref()), (Some("2"), Some("order-77")));
    provider.sandbox.set_idempotency(Idempotency::Honoured);
    let (first, again) = (buy("3", "order-78").await, buy("4", "order-78").await);
    assert_eq!(first, again);
    assert_ne!(first, buy("5", "order-79").await);
    assert_eq!(provider.sandbox.ledger().len(), 4);
    let url = format!("{}/v1/kling/o3-video/generate", provider.url);
    let other = provider.http.post(url).bearer_auth("another").header("x-idempotency-key", "order-78");
    assert_ne!(read(other.json(&json!({"prompt": "x"})).send().await.unwrap()).await.1["generation_id"], first);
    let unnamed = provider.http.get(format!("{}/v1/data/balance", provider.url)).send().await.unwrap();
    assert_eq!((unnamed.status().as_u16(), unnamed.headers()["x-request-id"].len()), (401, 16));
    let ledger = read(provider.http.get(format!("{}/sandbox/ledger", provider.url)).send().await.unwrap()).await.1;
    assert_eq!((&ledger[0]["request_id"], &ledger[0]["idempotency_key"]), (&json!("1"), &json!("order-77")));
}

#[tokio::test]
async fn webhooks_are_signed_where_a_secret_is_set() {
    for secret in [None, Some("dashboard secret".to_owned())] {
        let (told, mut heard) = tokio::sync::mpsc::channel(1);
        let hook = axum::Router::new().route(
            "/hook",
            axum::routing::post(async move |headers: axum::http::HeaderMap, body: axum::body::Bytes| {
                told.send((headers, body)).await.unwrap();
            }),
        );
        let listener = tokio::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let url = format!("http://{}/hook", listener.local_addr().unwrap());
        let mut serving = tokio::task::JoinSet::new();
        serving.spawn(axum::serve(listener, hook).into_future());
        let provider = Provider::start(Settings { webhook_secret: secret.clone(), ..Settings::default() }).await;
        provider.sandbox.plan_next(Plan::completed().taking(Duration::ZERO));
        provider.buy("kling/o3-video", json!({"prompt": "x", "callback_url": url})).await;
        let (headers, body) = heard.recv().await.unwrap();
        assert!(headers["user-agent"].to_str().unwrap().starts_with("RunBlob"));
        let expected = secret.map(|secret| {
            let mut mac = Hmac::<Sha256>::new_from_slice(secret.as_bytes()).unwrap();
            mac.update(&body);
            hex::encode(mac.finalize().into_bytes())
        });
        let given = headers.get("x-runblob-signature").map(|value| value.to_str().unwrap().to_owned());
        assert_eq!(given, expected);
    }
}

#[tokio::test]
async fn callbacks_over_http_can_be_refused_on_loopback_too() {
    let provider = Provider::start(Settings { https_callbacks_only: true, ..Settings::default() }).await;
    let order = |url: &str| json!({"prompt": "x", "callback_url": url});
    assert_eq!(provider.buy("kling/o3-video", order("http://localhost/hook")).await.0, 422);
    assert_eq!(provider.buy("kling/o3-video", order("https://localhost/hook")).await.0, 201);
}

#[tokio::test]
async fn an_answer_can_be_slow() {
    let provider = Provider::start(Settings::default()).await;
    let slow = Fault::Slow { ms: 120_000 };
    provider.sandbox.fault_next_submit(slow.clone());
    let waiting = provider.buy("kling/o3-video", json!({"prompt": "x"}));
    let (sold, ()) = tokio::join!(waiting, async {
        provider.sandbox.until(|ledger| ledger.len() == 1).await;
        tokio::task::yield_now().await;
        provider.clock.advance(Duration::from_mins(2));
    });
    assert_eq!(sold.0, 201);
    let id = sold.1["generation_id"].as_str().unwrap();
    provider.sandbox.fault_next_status(slow);
    let (answer, ()) = tokio::join!(provider.status("kling/o3-video", id), async {
        provider.sandbox.until(|ledger| ledger[0].reads.len() == 1).await;
        tokio::task::yield_now().await;
        provider.clock.advance(Duration::from_mins(2));
    });
    assert_eq!(answer.0, 200);
}

#[tokio::test]
async fn a_prompt_directs_the_answer_to_its_first_purchases() {
    let provider = Provider::start(Settings::default()).await;
    let buy = async |words: &str| {
        let answer = provider.post("kling/o3-video").json(&json!({"prompt": format!("a boat [sandbox: {words}]")}));
        let answer = answer.send().await.unwrap();
        (answer.status().as_u16(), answer.headers().get("retry-after").cloned(), answer.bytes().await.is_ok())
    };
    for (words, met, sold) in [
        ("answer=504", vec![504, 201], 2),
        ("answer=503 unsold times=2", vec![503, 503, 201], 1),
        ("answer=429 retry-after=7", vec![429, 201], 1),
        ("answer=429 sold", vec![429, 201], 2),
        ("answer=408", vec![408, 201], 2),
        ("answer-after=0 lose", vec![201, 201], 2),
    ] {
        let before = provider.sandbox.ledger().len();
        for status in met {
            let answer = buy(words).await;
            assert_eq!(answer.0, status, "{words}");
            let wants_rest = status == 429 && words.contains("retry-after");
            assert_eq!(answer.1.map(|value| value.to_str().unwrap().to_owned()), wants_rest.then(|| "7".to_owned()));
        }
        assert_eq!(provider.sandbox.ledger().len() - before, sold, "{words}");
    }
    assert!(provider.sandbox.ledger().last().unwrap().plan.webhooks.is_empty());
    let before = provider.sandbox.ledger().len();
    assert!(!buy("answer=cut").await.2, "it breaks off");
    assert_eq!(provider.sandbox.ledger().len(), before + 1);
    let lost = tokio::select! {
        answer = buy("answer=lost") => Some(answer),
        () = provider.sandbox.until(|ledger| ledger.len() == before + 2) => None,
    };
    assert_eq!(lost, None);
    assert_eq!(buy("answer=lost").await.0, 201, "the next one with that prompt is answered");
}
