//! The routes of contract section 5: prepare, register, bind, read, wait, refunds, catalogue; scopes and problems.

use std::time::Duration;

use recoup::config::{ApiKey, Scope};
use recoup::sandbox::{Fate, Plan};
use recoup::secret::Secret;
use reqwest::Method;
use serde_json::{Value, json};

use crate::support::{KEY, O3, World, completed, text};

#[tokio::test]
async fn a_prepared_generation_is_not_charged_and_not_checked() {
    let world = World::new().await;
    let body = json!({
        "family": O3, "model": "kling_o3_pro", "duration_seconds": 10, "prompt": "a paper boat", "metadata": {"user": "42"},
    });
    let answer = world.post("/v1/generations", &body).await;
    let location = answer.headers["location"].to_str().unwrap().to_owned();
    let shown = answer.expect(201);
    let id = text(&shown["id"]);
    assert!(id.starts_with("gen_") && id.len() == 36);
    assert_eq!(location, format!("/v1/generations/{id}"));
    assert!(text(&shown["callback_url"]).starts_with(&format!("{}/webhooks/{O3}/{id}.", world.url)));
    for (field, value) in [
        ("generation_id", Value::Null),
        ("status", json!("prepared")),
        ("credits", json!("not_charged")),
        ("attention", Value::Null),
        ("next_check_at", Value::Null),
        ("expected_by", Value::Null),
        ("submitted_at", Value::Null),
        ("settled_at", Value::Null),
        ("model", json!("kling_o3_pro")),
        ("duration_seconds", json!(10)),
        ("prompt", json!("a paper boat")),
        ("submitted_via", json!("api")),
        ("checks", json!(0)),
        ("deliveries", json!(0)),
        ("metadata", json!({"user": "42"})),
    ] {
        assert_eq!(shown[field], value, "{field}");
    }
    world.advance(Duration::from_hours(48)).await;
    assert_eq!(world.generation(&id).await["status"], "prepared", "time alone does nothing to it");
}

#[tokio::test]
async fn a_registered_generation_is_expected_as_its_model_and_duration_say() {
    let world = World::new().await;
    for (n, (model, seconds, expected_by)) in [
        (json!("kling_o3"), json!(5), "2026-11-23T10:02:00Z"),
        (json!("kling_o3"), json!(15), "2026-11-23T10:06:00Z"),
        (json!("kling_o3_pro"), json!(5), "2026-11-23T10:03:30Z"),
        (json!("kling_o3_pro"), json!(10), "2026-11-23T10:06:30Z"),
        (Value::Null, Value::Null, "2026-11-23T10:09:30Z"),
        (json!("kling_o4"), json!(5), "2026-11-23T10:09:30Z"),
    ]
    .into_iter()
    .enumerate()
    {
        let body = json!({
            "generation_id": format!("p-{n}"), "family": O3, "model": model, "duration_seconds": seconds,
            "price": "0.45", "submitted_at": "2026-11-23T09:59:00Z",
        });
        let shown = world.post("/v1/generations", &body).await.expect(201);
        assert_eq!(shown["expected_by"], expected_by, "{model} {seconds}");
        assert_eq!((&shown["price"], &shown["status"]), (&json!("0.4500"), &json!("pending")));
        assert_eq!(shown["credits"], "charged");
        assert!(!shown["next_check_at"].is_null());
    }
}

#[tokio::test]
async fn registering_again_fills_gaps_and_overwrites_nothing() {
    let world = World::new().await;
    let first = world.post("/v1/generations", &json!({"generation_id": "p-1"})).await.expect(201);
    assert_eq!(first["family"], O3, "Kling O3 video where none is named");
    assert_eq!(first["price"], Value::Null);
    let body = json!({"generation_id": "p-1", "price": "0.1500", "model": "kling_o3", "duration_seconds": 5});
    let known = world.post("/v1/generations", &body).await.expect(200);
    assert_eq!((&known["id"], &known["price"]), (&first["id"], &json!("0.1500")));
    assert_eq!(known["expected_by"], "2026-11-23T10:03:00Z", "better known, better expected");
    let body = json!({"generation_id": "p-1", "price": "9.0000"});
    let known = world.post("/v1/generations", &body).await.expect(200);
    assert_eq!(known["price"], "0.1500");
}

#[tokio::test]
async fn binding_never_overwrites_a_fact() {
    let world = World::new().await;
    let (id, _) = world.prepare().await;
    let path = format!("/v1/generations/{id}");
    let bound = world.patch(&path, &json!({"generation_id": "p-1", "price": "0.1500"})).await.expect(200);
    assert_eq!((&bound["status"], &bound["submitted_at"]), (&json!("pending"), &json!("2026-11-23T10:00:00Z")));
    world.patch(&path, &json!({"generation_id": "p-1"})).await.expect(200);
    let problem = world.patch(&path, &json!({"generation_id": "p-2"})).await.problem(409, "CONFLICT");
    assert!(text(&problem["detail"]).contains("generation_id"));
    world.patch(&path, &json!({"price": "0.2000", "metadata": {"a": "b"}})).await.problem(409, "CONFLICT");
    assert_eq!(world.generation(&id).await["metadata"], json!({}), "all or nothing");
    let labelled = world.patch(&path, &json!({"metadata": {"a": "b"}})).await.expect(200);
    assert_eq!(labelled["metadata"], json!({"a": "b"}));
    let relabelled = world.patch(&path, &json!({"metadata": {"c": "d"}})).await.expect(200);
    assert_eq!(relabelled["metadata"], json!({"c": "d"}));
    let other = world.prepare().await.0;
    let taken = world.patch(&format!("/v1/generations/{other}"), &json!({"generation_id": "p-1"})).await;
    assert!(text(&taken.problem(409, "CONFLICT")["detail"]).contains(&id));
    world.patch("/v1/generations/nothing", &json!({})).await.problem(404, "NOT_FOUND");
}

#[tokio::test]
async fn bad_input_is_named_by_its_pointer() {
    let world = World::new().await;
    let long = "x".repeat(10_001);
    for (body, pointer) in [
        (json!({"colour": "red"}), "/colour"),
        (json!({"generation_id": "a b"}), "/generation_id"),
        (json!({"generation_id": 7}), "/generation_id"),
        (json!({"price": 0.15}), "/price"),
        (json!({"price": "calculating"}), "/price"),
        (json!({"price": "-1"}), "/price"),
        (json!({"duration_seconds": "5"}), "/duration_seconds"),
        (json!({"duration_seconds": 0}), "/duration_seconds"),
        (json!({"submitted_at": "yesterday"}), "/submitted_at"),
        (json!({"submitted_at": "2026-11-23T11:00:00Z"}), "/submitted_at"),
        (json!({"family": "kling/o9"}), "/family"),
        (json!({"metadata": {"user": 42}}), "/metadata/user"),
        (json!({"metadata": {"user": "x".repeat(600)}}), "/metadata/user"),
        (json!({"metadata": []}), "/metadata"),
        (json!({"model": ""}), "/model"),
        (json!({"prompt": long}), "/prompt"),
    ] {
        let problem = world.post("/v1/generations", &body).await.problem(422, "INVALID_BODY");
        assert_eq!(problem["errors"][0]["pointer"], pointer, "{problem}");
        assert!(!text(&problem["errors"][0]["detail"]).is_empty());
    }
    let (id, _) = world.prepare().await;
    let problem = world.patch(&format!("/v1/generations/{id}"), &json!({"family": O3})).await;
    assert_eq!(problem.problem(422, "INVALID_BODY")["errors"][0]["pointer"], "/family");
    let raw = |body: &'static str| {
        let request = world.http.post(format!("{}/v1/generations", world.url)).bearer_auth(KEY).body(body);
        async { World::read(request.send().await.unwrap()).await }
    };
    raw("{not json").await.problem(400, "INVALID_JSON");
    raw("").await.problem(400, "INVALID_JSON");
    raw("{} {}").await.problem(400, "INVALID_JSON");
    raw("[]").await.problem(422, "INVALID_BODY");
    assert_eq!(world.get("/v1/generations").await.expect(200)["data"].as_array().unwrap().len(), 1, "nothing was kept");
}

#[tokio::test]
async fn every_route_wants_its_scope() {
    let secret = |scope: &str| format!("a key that may only {scope}");
    let world = World::with(|config| {
        config.api.keys = Scope::ALL
            .map(|scope| ApiKey {
                name: scope.as_str().to_owned(),
                secret: Secret::new(secret(scope.as_str())),
                scopes: vec![scope],
            })
            .to_vec();
    })
    .await;
    let (id, url) = world.prepare().await;
    world.webhook(&url, completed("p-1", "https://x/v")).await.expect(200);
    let delivery = text(&world.timeline(&id, "delivery").await[0]["id"]);
    for (method, path, scope) in [
        (Method::POST, "/v1/generations".to_owned(), Scope::Submit),
        (Method::PATCH, format!("/v1/generations/{id}"), Scope::Submit),
        (Method::GET, "/v1/generations".to_owned(), Scope::Read),
        (Method::GET, format!("/v1/generations/{id}"), Scope::Read),
        (Method::GET, format!("/v1/generations/{id}/timeline"), Scope::Read),
        (Method::POST, format!("/v1/generations/{id}/checks"), Scope::Operate),
        (Method::POST, format!("/v1/generations/{id}/refunds"), Scope::Operate),
        (Method::GET, "/v1/deliveries".to_owned(), Scope::Read),
        (Method::GET, format!("/v1/deliveries/{delivery}"), Scope::Read),
        (Method::POST, format!("/v1/deliveries/{delivery}/replays"), Scope::Operate),
        (Method::GET, "/v1/error-codes".to_owned(), Scope::Read),
        (Method::GET, "/v1/error-codes/TIMEOUT".to_owned(), Scope::Read),
        (Method::GET, "/v1/models".to_owned(), Scope::Read),
        (Method::GET, "/metrics".to_owned(), Scope::Read),
    ] {
        let body = (method != Method::GET).then(|| json!({}));
        let send = async |key: Option<&str>| world.send(method.clone(), &path, key, body.as_ref()).await;
        let unauthorized = send(None).await;
        assert_eq!(unauthorized.headers["www-authenticate"], "Bearer");
        unauthorized.problem(401, "UNAUTHORIZED");
        send(Some("a key that nobody knows")).await.problem(401, "UNAUTHORIZED");
        for held in Scope::ALL {
            let answer = send(Some(&secret(held.as_str()))).await;
            if held == scope {
                assert!(answer.status != 401 && answer.status != 403, "{method} {path}: {}", answer.body);
            } else {
                answer.problem(403, "FORBIDDEN");
            }
        }
    }
}

#[tokio::test]
async fn waiting_ends_as_soon_as_it_is_final() {
    let world = World::new().await;
    let (id, url) = world.prepare().await;
    let path = format!("/v1/generations/{id}?wait=60");
    let waiting = world.get(&path);
    tokio::pin!(waiting);
    assert!(futures_util::poll!(&mut waiting).is_pending());
    let (told, shown) = tokio::join!(world.webhook(&url, completed("p-1", "https://x/v")), &mut waiting);
    told.expect(200);
    assert_eq!(shown.expect(200)["status"], "completed");
    assert_eq!(world.get(&path).await.expect(200)["status"], "completed", "at once when it is final already");
}

#[tokio::test]
async fn waiting_ends_when_the_time_is_over() {
    let world = World::new().await;
    let (id, _) = world.prepare().await;
    let path = format!("/v1/generations/{id}?wait=30");
    let shown = tokio::select! {
        shown = world.get(&path) => shown,
        () = async { loop { world.clock.advance(Duration::from_secs(31)); tokio::task::yield_now().await; } } => unreachable!(),
    };
    assert_eq!(shown.expect(200)["status"], "prepared");
    for bad in ["61", "-1", "soon", ""] {
        let problem = world.get(&format!("/v1/generations/{id}?wait={bad}")).await.problem(400, "INVALID_QUERY");
        assert_eq!(problem["errors"][0]["parameter"], "wait");
    }
}

#[tokio::test]
async fn a_person_can_have_it_checked_at_once() {
    let world = World::new().await;
    let bought = world.buy(Plan::completed().lost().taking(Duration::ZERO)).await;
    let answer = world.post(&format!("/v1/generations/{}/checks", bought.id), &json!({})).await.expect(200);
    assert_eq!(answer["generation"]["status"], "completed");
    assert_eq!(answer["generation"]["source"], "check");
    assert_eq!((&answer["check"]["answer"], &answer["check"]["http_status"]), (&json!("known"), &json!(200)));
    assert_eq!(world.timeline(&bought.id, "check").await.len(), 1);
    let (prepared, _) = world.prepare().await;
    world.post(&format!("/v1/generations/{prepared}/checks"), &json!({})).await.problem(409, "CONFLICT");
}

#[tokio::test]
async fn a_check_without_budget_says_when_to_come_back() {
    let world = World::with(|config| config.provider.status_checks_per_minute = 1).await;
    let bought = world.buy(Plan { fate: Fate::NeverEnds, ..Plan::completed() }).await;
    let path = format!("/v1/generations/{}/checks", bought.id);
    world.post(&path, &json!({})).await.expect(200);
    world.advance_s(20).await;
    let refused = world.post(&path, &json!({})).await;
    assert_eq!(refused.headers["retry-after"], "40");
    refused.problem(429, "BUDGET_SPENT");
    world.advance_s(40).await;
    world.post(&path, &json!({})).await.expect(200);
}

#[tokio::test]
async fn a_person_can_confirm_that_the_credits_came_back() {
    let world = World::new().await;
    let bought = world.buy(Plan::failed("TIMEOUT").taking(Duration::ZERO)).await;
    world.sandbox.until(|ledger| !ledger[0].attempts.is_empty()).await;
    let path = format!("/v1/generations/{}/refunds", bought.id);
    assert_eq!(world.generation(&bought.id).await["credits"], "refund_expected");
    assert_eq!(world.post(&path, &json!({})).await.expect(200)["credits"], "refunded");
    assert_eq!(world.post(&path, &json!({})).await.expect(200)["credits"], "refunded");
    let notes = world.timeline(&bought.id, "note").await;
    let refunds = notes.iter().filter(|note| text(&note["text"]).contains("came back")).count();
    assert_eq!(refunds, 1);
    assert_eq!(notes[0]["author"], "api.key");
    let running = world.buy(Plan::completed()).await;
    world.post(&format!("/v1/generations/{}/refunds", running.id), &json!({})).await.problem(409, "CONFLICT");
}

#[tokio::test]
async fn the_timeline_tells_everything_oldest_first() {
    let world = World::new().await;
    let bought = world.buy(Plan::completed().lost()).await;
    world.advance_s(210).await;
    world.advance_s(1).await;
    world.webhook(&bought.callback_url, "garbage").await.problem(422, "UNREADABLE_WEBHOOK");
    let all = world.get(&format!("/v1/generations/{}/timeline", bought.id)).await.expect(200);
    let kinds: Vec<_> = all["data"].as_array().unwrap().iter().map(|entry| text(&entry["kind"])).collect();
    assert_eq!(kinds, ["submission", "note", "check", "outcome", "event", "delivery"]);
    let check = &world.timeline(&bought.id, "check").await[0];
    assert_eq!(
        (&check["answer"], &check["http_status"], &check["said"]),
        (&json!("known"), &json!(200), &json!("completed"))
    );
    assert_eq!(world.timeline(&bought.id, "submission").await[0]["price"], "0.1500");
}

#[tokio::test]
async fn the_catalogue_knows_the_documented_codes_and_counts_the_others() {
    let world = World::new().await;
    let all = world.get("/v1/error-codes").await.expect(200);
    assert!(all["data"].as_array().unwrap().iter().all(|code| code["known"] == true));
    let one = world.get("/v1/error-codes/MIXED_IMAGE_INPUTS").await.expect(200);
    assert_eq!(
        (&one["category"], &one["http_status"], &one["retryable"]),
        (&json!("user"), &json!(422), &json!(false))
    );
    assert_eq!(one["appears_in"], json!(["submit"]));
    assert!(one["families"].as_array().unwrap().contains(&json!(O3)));
    for n in 0..2 {
        let (_, url) = world.prepare().await;
        let body = json!({"generation_id": format!("p-{n}"), "status": "failed", "message": "NEVER_SEEN_BEFORE"});
        world.webhook(&url, body.to_string()).await.expect(200);
    }
    let unknown = world.get("/v1/error-codes/NEVER_SEEN_BEFORE").await.expect(200);
    assert_eq!((&unknown["known"], &unknown["count"]), (&json!(false), &json!(2)));
    let shown = world.generation("p-0").await;
    assert_eq!((&shown["error"]["code"], &shown["error"]["known"]), (&json!("NEVER_SEEN_BEFORE"), &json!(false)));
    world.get("/v1/error-codes/NOBODY_SAID_THIS").await.problem(404, "NOT_FOUND");
}

#[tokio::test]
async fn the_models_guide_says_what_to_use_when() {
    let world = World::new().await;
    let models = world.get("/v1/models").await.expect(200);
    let find =
        |name: &str| models["data"].as_array().unwrap().iter().find(|model| model["model"] == name).unwrap().clone();
    let (standard, pro) = (find("kling_o3"), find("kling_o3_pro"));
    assert_eq!((&standard["resolution"], &pro["resolution"]), (&json!("720p"), &json!("1080p")));
    assert_eq!(standard["is_default"], true);
    assert_eq!(standard["durations"][1]["expected_seconds"]["to"], 300);
    assert_eq!(pro["relative_cost"], "about 2");
    assert!(text(&pro["use_for"]).contains("Professional"));
}

#[tokio::test]
async fn unknown_routes_and_methods_are_problems() {
    let world = World::new().await;
    world.get("/v2/generations").await.problem(404, "NOT_FOUND");
    world.send(Method::DELETE, "/v1/generations", Some(KEY), None).await.problem(405, "METHOD_NOT_ALLOWED");
    world.get("/v1/generations/gen_nothing").await.problem(404, "NOT_FOUND");
    world.get("/v1/generations/..%2F..%2Fetc").await.problem(404, "NOT_FOUND");
    world.get("/v1/generations/%ff").await.problem(404, "NOT_FOUND");
    let given = world.http.get(format!("{}/livez", world.url)).header("x-request-id", "abc-123").send().await.unwrap();
    assert_eq!(given.headers()["x-request-id"], "abc-123");
}

#[tokio::test]
async fn many_waiters_are_each_answered_by_their_own_outcome() {
    let world = World::new().await;
    let mut prepared = Vec::new();
    for _ in 0..400 {
        prepared.push(world.prepare().await);
    }
    let waiting = prepared.iter().map(|(id, _)| {
        let path = format!("/v1/generations/{id}?wait=60");
        let world = &world;
        async move { world.get(&path).await.expect(200) }
    });
    let telling = async {
        for (n, (_, url)) in prepared.iter().enumerate() {
            world.webhook(url, completed(&format!("p-{n}"), "https://x/v.mp4")).await.expect(200);
        }
    };
    // The clock stands still: only the commits wake.
    let (answers, ()) = tokio::join!(futures_util::future::join_all(waiting), telling);
    for (n, answer) in answers.iter().enumerate() {
        assert_eq!((&answer["status"], &answer["generation_id"]), (&json!("completed"), &json!(format!("p-{n}"))));
    }
    let list = world.get("/v1/generations?status=prepared").await.expect(200);
    assert_eq!(list["data"], json!([]));
}
