//! What comes beside a webhook's body: the provider's signature, verified where its secret is known, headers that are kept, and
//! both handed on to the caller's own callback.

use std::time::Duration;

use hmac::{Hmac, KeyInit, Mac};
use recoup::sandbox::Plan;
use recoup::secret::Secret;
use reqwest::header::HeaderMap;
use serde_json::{Value, json};
use sha2::Sha256;

use crate::outbox::Recorder;
use crate::support::{Answer, KEY, O3, World, completed, failed, text};

const SECRET: &str = "the secret of the provider's dashboard";

fn sign(secret: &str, body: &str) -> String {
    let mac = Hmac::<Sha256>::new_from_slice(secret.as_bytes()).unwrap().chain_update(body.as_bytes());
    hex::encode(mac.finalize().into_bytes())
}

async fn verifying() -> World {
    World::with(|config| config.webhook.provider_secrets = vec![Secret::new("a newer one"), Secret::new(SECRET)]).await
}

async fn send(world: &World, url: &str, headers: &[(&str, &str)], body: &str) -> Answer {
    let mut request = world.http.post(url).header("content-type", "application/json").body(body.to_owned());
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    World::read(request.send().await.unwrap()).await
}

async fn send_signed(world: &World, url: &str, signature: &str, body: &str) -> Answer {
    send(world, url, &[("x-runblob-signature", signature)], body).await
}

#[tokio::test]
async fn a_right_signature_vouches_for_the_outcome() {
    let mut world = verifying().await;
    let by_own = world.buy(Plan::completed().lost().taking(Duration::from_mins(9))).await;
    let body = completed(&by_own.provider_id, "https://x/v.mp4");
    send_signed(&world, &by_own.callback_url, &sign(SECRET, &body), &body).await.expect(200);
    let by_standing = world.buy(Plan::completed().lost().taking(Duration::from_mins(9))).await;
    let body = completed(&by_standing.provider_id, "https://x/w.mp4");
    let upper = format!("sha256={}", sign(SECRET, &body).to_uppercase());
    send_signed(&world, &world.standing_url(), &upper, &body).await.expect(200);
    for restarted in [false, true] {
        if restarted {
            world.restart().await;
        }
        for (bought, word) in [(&by_own, "token+signature"), (&by_standing, "signature")] {
            let shown = world.generation(&bought.id).await;
            assert_eq!((&shown["status"], &shown["verification"]), (&json!("completed"), &json!(word)));
            assert_eq!(world.timeline(&bought.id, "outcome").await[0]["verification"], word);
            let delivery = &world.get(&format!("/v1/deliveries?generation={}", bought.id)).await.expect(200)["data"][0];
            assert_eq!((&delivery["signature"], &delivery["disposition"]), (&json!("verified"), &json!("accepted")));
        }
    }
    assert_eq!(world.reads(), 0, "nobody had to be asked");
    // What the provider's own answer corrects keeps what vouched for it before.
    world.sandbox.fault_next_status(recoup::sandbox::Fault::Answer {
        status: 200,
        body: json!({"generation_id": by_standing.provider_id, "status": "failed", "message": "TIMEOUT"}),
    });
    world.post(&format!("/v1/generations/{}/checks", by_standing.id), &json!({})).await.expect(200);
    let versions: Vec<Value> = world.timeline(&by_standing.id, "outcome").await;
    let words: Vec<_> = versions.iter().map(|version| text(&version["verification"])).collect();
    assert_eq!(words, ["signature", "status"]);
}

#[tokio::test]
async fn a_wrong_signature_is_refused_like_a_wrong_token() {
    let world = verifying().await;
    let bought = world.buy(Plan::completed().lost().taking(Duration::from_mins(9))).await;
    let body = completed(&bought.provider_id, "https://x/v.mp4");
    let right = sign(SECRET, &body);
    let mut wrong_token =
        send(&world, &format!("{}x", bought.callback_url), &[], &body).await.problem(404, "NOT_FOUND");
    wrong_token["request_id"] = Value::Null;
    for signature in [sign("another secret", &body), sign(SECRET, "{}"), right[..62].to_owned(), "nonsense".to_owned()]
    {
        for url in [&bought.callback_url, &world.standing_url()] {
            let mut refused = send_signed(&world, url, &signature, &body).await.problem(404, "NOT_FOUND");
            refused["request_id"] = Value::Null;
            assert_eq!(refused, wrong_token, "nothing tells them apart");
        }
    }
    let shown = world.generation(&bought.id).await;
    assert_eq!((&shown["status"], &shown["deliveries"]), (&json!("pending"), &json!(0)));
    assert_eq!(world.get("/v1/deliveries").await.expect(200)["data"], json!([]), "nothing is kept of it");
    let metrics = text(&world.get("/metrics").await.expect(200));
    let count =
        metrics.lines().find(|line| line.starts_with(r#"recoup_webhooks_refused_total{reason="WRONG_SIGNATURE"}"#));
    assert!(count.is_some(), "{metrics}");
    let too_long = "x".repeat(70_000);
    send_signed(&world, &bought.callback_url, "nonsense", &too_long).await.problem(413, "BODY_TOO_LARGE");
    send_signed(&world, &bought.callback_url, &right, &body).await.expect(200);
}

/// It is not known whether the provider signs every webhook: one without a signature is what it was before.
#[tokio::test]
async fn a_missing_signature_is_no_wrong_one() {
    let world = verifying().await;
    for headers in [&[][..], &[("x-runblob-signature", "")], &[("x-runblob-signature", "  ")]] {
        let bought = world.buy(Plan::completed().lost().taking(Duration::from_mins(9))).await;
        send(&world, &bought.callback_url, headers, &completed(&bought.provider_id, "https://x/v.mp4"))
            .await
            .expect(200);
        assert_eq!(world.generation(&bought.id).await["verification"], "token");
        let delivery = &world.get(&format!("/v1/deliveries?generation={}", bought.id)).await.expect(200)["data"][0];
        assert_eq!(delivery["signature"], Value::Null);
    }
    let bought = world.buy(Plan::completed().lost().taking(Duration::from_mins(2))).await;
    world.advance_s(120).await;
    let body = completed(&bought.provider_id, &world.purchase(&bought.provider_id).result_url());
    send(&world, &world.standing_url(), &[], &body).await.expect(200);
    world.after_reads(1).await;
    assert_eq!(world.generation(&bought.id).await["verification"], "token+status", "confirmed as ever");
}

#[tokio::test]
async fn where_everything_is_confirmed_a_signed_webhook_is_too() {
    let world = World::with(|config| {
        config.webhook.provider_secret = Secret::new(SECRET);
        config.webhook.confirm = recoup::config::Confirm::Always;
    })
    .await;
    let bought = world.buy(Plan::completed().lost().taking(Duration::from_mins(2))).await;
    world.advance_s(120).await;
    let body = completed(&bought.provider_id, &world.purchase(&bought.provider_id).result_url());
    send_signed(&world, &bought.callback_url, &sign(SECRET, &body), &body).await.expect(200);
    world.after_reads(1).await;
    let shown = world.generation(&bought.id).await;
    assert_eq!((&shown["verification"], &shown["checks"]), (&json!("token+status"), &json!(1)));
}

#[tokio::test]
async fn headers_are_kept_without_what_lets_in_and_shown_with_the_delivery() {
    let world = World::new().await;
    let bought = world.buy(Plan::completed().lost().taking(Duration::from_mins(9))).await;
    let body = failed(&bought.provider_id, "TIMEOUT");
    let token = bought.callback_url.rsplit_once('/').unwrap().1;
    let headers = [
        ("x-runblob-signature", "00ff"),
        ("x-attempt", "2"),
        ("user-agent", "RunBlob-Webhooks/1 <b>"),
        ("authorization", "Bearer hidden-1"),
        ("cookie", "a=hidden-2"),
        ("x-forwarded-for", "203.0.113.9"),
        ("x-original-uri", token),
    ];
    send(&world, &bought.callback_url, &headers, &body).await.expect(200);
    let delivery = text(&world.get("/v1/deliveries").await.expect(200)["data"][0]["id"]);
    let shown = world.get(&format!("/v1/deliveries/{delivery}")).await.expect(200);
    assert_eq!(shown["signature"], "unchecked");
    let mut kept = shown["headers"].clone();
    kept.as_object_mut().unwrap().remove("accept");
    let expected = json!({
        "content-type": "application/json", "user-agent": "RunBlob-Webhooks/1 <b>", "x-attempt": "2",
        "x-forwarded-for": "203.0.113.9", "x-runblob-signature": "00ff",
    });
    assert_eq!(kept, expected);
    let evidence = world.get(&format!("/v1/generations/{}/evidence", bought.id)).await.expect(200);
    let of_evidence = &evidence["deliveries"][0];
    assert_eq!((&of_evidence["signature"], &of_evidence["headers"]["x-attempt"]), (&json!("unchecked"), &json!("2")));
    assert_eq!(of_evidence["headers"].get("x-forwarded-for"), None, "our proxies are not the provider's business");
    let page = text(&world.get(&format!("/v1/generations/{}/evidence?format=md", bought.id)).await.expect(200));
    assert!(page.contains("Signature: unchecked") && page.contains("| x-attempt | 2 |"), "{page}");
    for secret in ["hidden", token, KEY] {
        assert!(!shown.to_string().contains(secret) && !page.contains(secret), "{secret}");
    }
    let html = delivery_page(&world, &delivery).await;
    assert!(html.contains("<code>x-attempt</code>") && html.contains("RunBlob-Webhooks/1 &#60;b&#62;"), "{html}");
    assert!(html.contains("webhook.provider_secret is not set"), "{html}");
    let replayed = world.post(&format!("/v1/deliveries/{delivery}/replays"), &json!({})).await.expect(200);
    assert_eq!((&replayed["signature"], &replayed["headers"]), (&shown["signature"], &shown["headers"]));
}

async fn delivery_page(world: &World, delivery: &str) -> String {
    let login = world.http.post(format!("{}/login", world.url)).body(format!("key={}", KEY.replace(' ', "+")));
    let login = login.header("content-type", "application/x-www-form-urlencoded").header("origin", &world.url);
    let answer = login.send().await.unwrap();
    let cookie = answer.headers()["set-cookie"].to_str().unwrap().split(';').next().unwrap().to_owned();
    let page = world.http.get(format!("{}/deliveries/{delivery}", world.url)).header("cookie", cookie);
    page.send().await.unwrap().text().await.unwrap()
}

async fn buy_with_callback(world: &World, caller: &Recorder, plan: Plan) -> (String, String) {
    world.sandbox.plan_next(plan);
    let body = json!({"prompt": "a paper boat", "callback_url": caller.url});
    let sold = world.post(&format!("/gateway/v1/{O3}/generate"), &body).await.expect(201);
    let id = text(&sold["generation_id"]);
    let ours = world.purchase(&id).callback_url.unwrap();
    (id, ours)
}

#[tokio::test]
async fn the_callers_own_callback_gets_the_webhooks_bytes_type_and_signature() {
    let world = World::with(|config| config.events.allow_private_addresses = true).await;
    let caller = Recorder::start().await;
    let (id, ours) = buy_with_callback(&world, &caller, Plan::completed().lost().taking(Duration::from_mins(9))).await;
    // As no serializer of ours would write it.
    let body = format!(
        "{{\n \"x\" : 1.0e2, \"generation_id\":\"{id}\",\"status\": \"completed\",\"video_url\":\"https:\\/\\/x/v.mp4\" }}"
    );
    let signature = sign(SECRET, &body).to_uppercase();
    let headers = [("content-type", "application/json; charset=utf-8"), ("x-runblob-signature", &signature)];
    let mut request = world.http.post(&ours).body(body.clone());
    request = request.headers(
        headers.iter().map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap())).collect::<HeaderMap>(),
    );
    World::read(request.send().await.unwrap()).await.expect(200);
    let got = caller.after(1).await.remove(0);
    assert_eq!(got.body(), body);
    assert_eq!(got.header("x-runblob-signature"), signature);
    assert_eq!(got.header("content-type"), "application/json; charset=utf-8");
    // The provider's answer corrects it: what that said goes out, and nobody's signature with it.
    let corrected = json!({"generation_id": id, "status": "failed", "message": "TIMEOUT", "more": [1], "prompt": null});
    world.sandbox.fault_next_status(recoup::sandbox::Fault::Answer { status: 200, body: corrected });
    world.post(&format!("/v1/generations/{id}/checks"), &json!({})).await.expect(200);
    let got = caller.after(2).await.remove(1);
    let told = got.json();
    assert_eq!((&told["status"], &told["message"], &told["more"]), (&json!("failed"), &json!("TIMEOUT"), &json!([1])));
    assert!(!got.has("x-runblob-signature"));
}

#[tokio::test]
async fn where_a_read_found_the_outcome_the_callback_is_written_by_us_out_of_it() {
    let world = World::with(|config| config.events.allow_private_addresses = true).await;
    let caller = Recorder::start().await;
    let (id, _) = buy_with_callback(&world, &caller, Plan::completed().lost().taking(Duration::from_mins(2))).await;
    world.advance_s(120).await;
    let link = world.purchase(&id).result_url();
    let read =
        json!({"generation_id": id, "status": "completed", "video_url": link, "last_frame_url": "https://x/f.png"});
    world.sandbox.fault_next_status(recoup::sandbox::Fault::Answer { status: 200, body: read });
    world.post(&format!("/v1/generations/{id}/checks"), &json!({})).await.expect(200);
    let told = caller.after(1).await.remove(0);
    assert_eq!(told.header("content-type"), "application/json");
    assert!(!told.has("x-runblob-signature"));
    let told = told.json();
    assert_eq!((&told["video_url"], &told["last_frame_url"]), (&json!(link), &json!("https://x/f.png")));
    assert_eq!(
        (&told["generation_id"], &told["message"], &told["model"]),
        (&json!(id), &Value::Null, &json!("kling-o3-video-5s"))
    );
}
