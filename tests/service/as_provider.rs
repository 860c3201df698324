//! What a client of the provider reads through `/gateway` besides its purchases: lists, aliases, the balance, errors it can
//! print, and everything that the provider told.

use std::time::Duration;

use recoup::sandbox::{Fault, Plan};
use serde_json::{Value, json};
use url::Url;

use crate::raw::{RawProvider, Then, http, sold};
use crate::support::{KEY, O3, PROVIDER_KEY, World, completed, failed, text};

async fn buy(world: &World, family: &str, plan: Plan) -> String {
    world.sandbox.plan_next(plan);
    let sold =
        world.post(&format!("/gateway/v1/{family}/generate"), &json!({"prompt": "a paper boat"})).await.expect(201);
    text(sold.get("generation_id").unwrap_or(&sold["task_uuid"]))
}

async fn status(world: &World, family: &str, id: &str) -> Value {
    world.get(&format!("/gateway/v1/{family}/generations/{id}")).await.expect(200)
}

fn ids(list: &Value, field: &str) -> Vec<String> {
    list.as_array().unwrap().iter().map(|one| text(&one[field])).collect()
}

#[tokio::test]
async fn a_familys_list_is_a_bare_array_newest_first() {
    let world = World::new().await;
    let mut bought = Vec::new();
    for n in 0..5 {
        bought.push(buy(&world, "kling", Plan::completed().lost().taking(Duration::from_mins(5))).await);
        if n == 2 {
            buy(&world, O3, Plan::completed()).await;
            world.advance_s(1).await;
        }
    }
    bought.reverse();
    world.sandbox.fault_next_submit(Fault::DetailText);
    world.post("/gateway/v1/kling/generate", &json!({"prompt": "x"})).await.expect(422);
    world.post("/v1/generations", &json!({"family": "kling"})).await.expect(201);
    let list = async |query: &str| world.get(&format!("/gateway/v1/kling/generations{query}")).await.expect(200);
    let all = list("").await;
    assert_eq!(ids(&all, "generation_id"), bought, "what the provider knows by an id, of this path only");
    assert_eq!(all[0], status(&world, "kling", &bought[0]).await, "each is as its status");
    assert_eq!(ids(&list("?limit=2").await, "generation_id"), bought[..2]);
    assert_eq!(ids(&list("/?limit=2&offset=3").await, "generation_id"), bought[3..]);
    assert_eq!(list("?offset=5").await, json!([]));
    assert_eq!(list("?limit=100&offset=100000&anything=else").await, json!([]));
    assert_eq!(world.get("/gateway/v1/gemini/generations").await.expect(200), json!([]));
    assert_eq!(world.reads(), 0, "it costs nothing");
    for query in ["limit=0", "limit=101", "limit=ten", "limit=", "offset=-1", "offset=100001", "offset=1.5"] {
        let answer = world.get(&format!("/gateway/v1/kling/generations?{query}")).await;
        let problem = answer.problem(422, "INVALID_PARAMETERS");
        let name = query.split('=').next().unwrap();
        assert!(text(&problem["message"]).starts_with(&format!("{name}: must be a whole number from ")), "{problem}");
        assert_eq!(problem["errors"][0]["parameter"], name);
    }
    world.get("/gateway/v1/kling/o4/generations").await.problem(404, "NOT_FOUND");
    world.send(reqwest::Method::GET, "/gateway/v1/kling/generations", None, None).await.problem(401, "UNAUTHORIZED");
    world.post("/gateway/v1/kling/generations", &json!({})).await.problem(404, "NOT_FOUND");
}

#[tokio::test]
async fn a_status_is_read_under_both_of_its_paths() {
    let world = World::new().await;
    for (family, field) in [("veo", "generation_id"), ("gemini", "task_uuid"), (O3, "generation_id")] {
        let id = buy(&world, family, Plan::completed().taking(Duration::from_mins(2))).await;
        let usual = status(&world, family, &id).await;
        assert_eq!(usual[field], json!(id));
        for path in ["generations/ID/", "status/ID", "status/ID/"] {
            let answer = world.get(&format!("/gateway/v1/{family}/{}", path.replace("ID", &id))).await;
            assert!(answer.headers["recoup-generation"].to_str().unwrap().starts_with("gen_"));
            assert_eq!(answer.expect(200), usual, "{path}");
        }
    }
    world.get("/gateway/v1/veo/status/nobody").await.problem(404, "GENERATION_NOT_FOUND");
    world.get("/gateway/v1/veo/status").await.problem(404, "NOT_FOUND");
}

#[tokio::test]
async fn the_balance_is_the_providers_own_and_is_not_asked_for_twice_in_a_hurry() {
    let world = World::new().await;
    let balance = async || world.get("/gateway/v1/data/balance").await;
    let first = balance().await;
    assert_eq!(first.headers["content-type"], "application/json");
    assert_eq!(first.expect(200), json!({"balance": "1000.0000"}));
    buy(&world, O3, Plan::completed()).await;
    world.advance_s(9).await;
    assert_eq!(balance().await.expect(200)["balance"], "1000.0000", "the answer of a moment ago");
    world.advance_s(1).await;
    assert_eq!(balance().await.expect(200)["balance"], "999.8500");
    world
        .send(reqwest::Method::GET, "/gateway/v1/data/balance", Some(PROVIDER_KEY), None)
        .await
        .problem(401, "UNAUTHORIZED");
}

#[tokio::test]
async fn the_balance_is_one_read_of_the_budget() {
    let world = World::with(|config| config.provider.status_checks_per_minute = 2).await;
    for seconds in [0, 11] {
        world.advance_s(seconds).await;
        world.get("/gateway/v1/data/balance").await.expect(200);
    }
    world.advance_s(11).await;
    let spent = world.get("/gateway/v1/data/balance").await;
    let wait: u64 = spent.headers["retry-after"].to_str().unwrap().parse().unwrap();
    assert!((1..=60).contains(&wait), "{wait}");
    spent.problem(429, "BUDGET_SPENT");
    world.advance_s(wait).await;
    world.get("/gateway/v1/data/balance").await.expect(200);
}

#[tokio::test]
async fn a_balance_that_the_provider_does_not_have_stays_so() {
    let answer = http("404 Not Found", "retry-after: 7\r\n", r#"{"detail":"Not Found"}"#);
    let provider = RawProvider::start(Then::Answer(answer)).await;
    let url = Url::parse(&provider.url).unwrap();
    let world = World::with(move |config| config.provider.base_url = url).await;
    for _ in 0..3 {
        let answer = world.get("/gateway/v1/data/balance").await;
        assert_eq!(answer.headers["retry-after"], "7");
        assert_eq!(answer.expect(404), json!({"detail": "Not Found"}));
    }
    let seen = provider.seen();
    assert_eq!(seen.len(), 1, "asked once");
    assert!(seen[0].head.starts_with("GET /v1/data/balance "), "{}", seen[0].head);
    assert_eq!(seen[0].header("authorization"), Some(format!("Bearer {PROVIDER_KEY}").as_str()));
    let closed = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let world = World::with(move |config| config.provider.base_url = format!("http://{closed}").parse().unwrap()).await;
    world.get("/gateway/v1/data/balance").await.problem(502, "PROVIDER_SILENT");
}

#[tokio::test]
async fn the_providers_clients_can_print_every_problem() {
    let world = World::new().await;
    for (path, status) in [
        ("/gateway/v1/kling/o3-video/generations/nobody", 404),
        ("/gateway/v1/kling/o3-video/nothing", 404),
        ("/gateway/v1/kling/generations?limit=0", 422),
        ("/gateway/%ff", 404),
    ] {
        let problem = world.get(path).await;
        assert_eq!(
            (problem.status, &problem.headers["content-type"]),
            (status, &"application/problem+json".parse().unwrap())
        );
        let problem = problem.body;
        assert_eq!((&problem["error"], &problem["message"]), (&problem["title"], &problem["detail"]), "{problem}");
        assert!(problem["error"].is_string() && problem["message"].is_string(), "{problem}");
    }
    let refused =
        world.send(reqwest::Method::POST, "/gateway/v1/veo/generate", Some("nobody's"), Some(&json!({}))).await;
    assert!(text(&refused.problem(401, "UNAUTHORIZED")["error"]).contains("API key"));
    for path in ["/v1/generations/nobody", "/gatewayed"] {
        let problem = world.get(path).await.expect(404);
        assert_eq!((problem.get("error"), problem.get("message")), (None, None), "{path}: {problem}");
    }
}

#[tokio::test]
async fn what_was_read_as_json_is_sent_as_json() {
    for (given, sent) in [
        (Some("application/x-www-form-urlencoded"), "application/json"),
        (Some("text/plain"), "application/json"),
        (None, "application/json"),
        (Some("application/json; charset=utf-8"), "application/json; charset=utf-8"),
    ] {
        let provider = RawProvider::start(Then::Answer(sold("p-1"))).await;
        let url = Url::parse(&provider.url).unwrap();
        let world = World::with(move |config| config.provider.base_url = url).await;
        let mut request = world.http.post(format!("{}/gateway/v1/{O3}/generate", world.url)).bearer_auth(KEY);
        if let Some(given) = given {
            request = request.header("content-type", given);
        }
        World::read(request.body(r#"{"prompt":"x"}"#).send().await.unwrap()).await.expect(201);
        assert_eq!(provider.seen()[0].header("content-type"), Some(sent), "{given:?}");
    }
}

#[tokio::test]
async fn everything_a_webhook_told_is_passed_on_and_every_link_is_in_the_api() {
    let world = World::new().await;
    let id = buy(&world, "seedance", Plan::completed().lost().taking(Duration::from_mins(2))).await;
    let before = status(&world, "seedance", &id).await;
    assert_eq!((&before["status"], &before["prompt"]), (&json!("pending"), &json!("a paper boat")));
    let url = world.purchase(&id).callback_url.unwrap();
    let told = json!({
        "task_uuid": id, "status": "completed", "unheard_of": [1, {"a": null}], "error": null, "model": "theirs",
        "output": {"video_urls": ["https://x/1.mp4", "https://x/2.mp4"], "last_frame_url": "https://x/f.png"},
    });
    world.webhook(&url, told.to_string()).await.expect(200);
    let mut expected = told.clone();
    expected["prompt"] = json!("a paper boat");
    assert_eq!(status(&world, "seedance", &id).await, expected);
    assert_eq!(world.get("/gateway/v1/seedance/generations").await.expect(200), json!([expected]));
    let link = |url: &str, kind: &str| json!({"url": url, "type": kind});
    let links =
        json!([link("https://x/1.mp4", "video"), link("https://x/f.png", "image"), link("https://x/2.mp4", "video")]);
    let shown = world.generation(&id).await;
    assert_eq!((&shown["result_url"], &shown["results"]), (&json!("https://x/1.mp4"), &links));
    let waited = world.get(&format!("/v1/generations/{id}?wait=5")).await.expect(200);
    assert_eq!(waited["results"], links);
    let listed = world.get("/v1/generations").await.expect(200);
    assert_eq!(listed["data"][0].get("results"), None, "not in lists");
    // A contradiction is nobody's business until the provider has settled it; nor is what only repeats and tells less.
    let lie = json!({"task_uuid": id, "status": "failed", "error": "TASK_FAILED", "lie": true});
    world.webhook(&url, lie.to_string()).await.expect(200);
    let less = json!({"task_uuid": id, "status": "completed", "output": {"video_urls": ["https://x/1.mp4"]}});
    world.webhook(&url, less.to_string()).await.expect(200);
    assert_eq!(status(&world, "seedance", &id).await, expected);
}

#[tokio::test]
async fn what_a_read_told_is_passed_on_and_a_claim_that_nobody_confirmed_is_not() {
    let world = World::new().await;
    let id = buy(&world, "sora", Plan::completed().lost().taking(Duration::from_mins(20))).await;
    let running = json!({"generation_id": id, "status": "processing", "prompt": "theirs", "progress_pct": 40});
    world.sandbox.fault_next_status(Fault::Answer { status: 200, body: running });
    world.post(&format!("/v1/generations/{id}/checks"), &json!({})).await.expect(200);
    let told = status(&world, "sora", &id).await;
    assert_eq!((&told["status"], &told["progress_pct"]), (&json!("processing"), &json!(40)));
    let long = json!({"generation_id": id, "status": "processing", "progress_pct": 60, "notes": "x".repeat(20_000)});
    world.sandbox.fault_next_status(Fault::Answer { status: 200, body: long });
    world.post(&format!("/v1/generations/{id}/checks"), &json!({})).await.expect(200);
    let told = status(&world, "sora", &id).await;
    assert_eq!(
        (&told["progress_pct"], &told["prompt"]),
        (&json!(60), &json!("a paper boat")),
        "longer than evidence was"
    );
    // Anybody may know a standing URL: until the provider has confirmed it, nothing of it is told.
    let o3 = buy(&world, O3, Plan::completed().lost().taking(Duration::from_mins(20))).await;
    world.sandbox.fault_every_status(Some(Fault::ServerError));
    world.webhook(&world.standing_url(), completed(&o3, "https://evil.example/v.mp4")).await.expect(200);
    let told = status(&world, O3, &o3).await;
    assert_eq!((&told["status"], &told["video_url"]), (&json!("pending"), &Value::Null));
    assert!(!world.get(&format!("/gateway/v1/{O3}/generations")).await.expect(200).to_string().contains("evil"));
}

#[tokio::test]
async fn a_prompt_is_never_null_and_a_seed_is_that_of_the_purchase() {
    let world = World::new().await;
    let registered = json!({"generation_id": "p-7", "family": O3});
    world.post("/v1/generations", &registered).await.expect(201);
    assert_eq!(status(&world, O3, "p-7").await["prompt"], "");
    let prompt = json!({"generation_id": "p-7", "status": "processing", "prompt": "told by the provider"});
    world.sandbox.fault_next_status(Fault::Answer { status: 200, body: prompt });
    world.post("/v1/generations/p-7/checks", &json!({})).await.expect(200);
    assert_eq!(status(&world, O3, "p-7").await["prompt"], "told by the provider");
    let answer = http("201 Created", "", r#"{"generation_id":"p-1","status":"pending","seed":77,"price":"0.2500"}"#);
    let provider = RawProvider::start(Then::Answer(answer)).await;
    let url = Url::parse(&provider.url).unwrap();
    let world = World::with(move |config| config.provider.base_url = url).await;
    world.post("/gateway/v1/veo/generate", &json!({"prompt": "a paper boat"})).await.expect(201);
    let told = status(&world, "veo", "p-1").await;
    assert_eq!((&told["seed"], &told["error"], &told["completed_at"]), (&json!(77), &Value::Null, &Value::Null));
}

#[tokio::test]
async fn what_retention_removed_is_told_from_the_record() {
    let world = World::with(|config| config.retention.payloads.0 = Duration::from_hours(1)).await;
    let id = buy(&world, O3, Plan::completed().lost().taking(Duration::from_mins(2))).await;
    let url = world.purchase(&id).callback_url.unwrap();
    let told = json!({"generation_id": id, "status": "completed", "video_url": "https://x/v.mp4", "more": 1});
    world.webhook(&url, told.to_string()).await.expect(200);
    assert_eq!(status(&world, O3, &id).await["more"], json!(1));
    let delivery = text(&world.get("/v1/deliveries").await.expect(200)["data"][0]["id"]);
    loop {
        world.advance(Duration::from_hours(1)).await;
        if world.get(&format!("/v1/deliveries/{delivery}")).await.expect(200)["body"].is_null() {
            break;
        }
    }
    let told = status(&world, O3, &id).await;
    assert_eq!((told.get("more"), &told["video_url"]), (None, &json!("https://x/v.mp4")));
    let results = json!([{"url": "https://x/v.mp4", "type": "video"}]);
    assert_eq!(world.generation(&id).await["results"], results);
    let delivery = world.get(&format!("/v1/deliveries/{delivery}")).await.expect(200);
    assert_eq!(delivery["headers"], json!({}), "removed with the body");
}

/// As the two public bots do it: four tries after whatever failure, `status` polled, `message` read (provider.md 13).
struct Bot<'w>(&'w World);

impl Bot<'_> {
    async fn buy(&self, family: &str) -> Option<Value> {
        for _ in 0..4 {
            let answer =
                self.0.post(&format!("/gateway/v1/{family}/generate"), &json!({"prompt": "a paper boat"})).await;
            if answer.status == 201 {
                return Some(answer.body);
            }
        }
        None
    }

    /// The last status and what its `message` says.
    async fn wait(&self, family: &str, id: &str) -> (String, Option<String>) {
        for _ in 0..100 {
            let told = self.0.get(&format!("/gateway/v1/{family}/status/{id}")).await.expect(200);
            let word = text(&told["status"]);
            if word == "completed" || word == "failed" {
                return (word, told["message"].as_str().map(str::to_owned));
            }
            self.0.advance_s(5).await;
        }
        panic!("it never ended");
    }
}

#[tokio::test]
async fn a_bot_that_repeats_after_refusals_and_polls_status_reads_why_it_failed() {
    let world = World::new().await;
    let bot = Bot(&world);
    for (family, field) in
        [("veo", "generation_id"), ("gemini", "task_uuid"), ("sora", "generation_id"), (O3, "generation_id")]
    {
        let count = world.sandbox.ledger().len();
        world.sandbox.fault_next_submit(Fault::RateLimited { retry_after: None });
        world.sandbox.fault_next_submit(Fault::DetailList);
        world.sandbox.plan_next(Plan::failed("TASK_FAILED").taking(Duration::from_secs(40)));
        let sold = bot.buy(family).await.unwrap();
        assert_eq!(world.sandbox.ledger().len(), count + 1, "{family}");
        let (end, message) = bot.wait(family, &text(&sold[field])).await;
        assert_eq!((end.as_str(), message.as_deref()), ("failed", Some("TASK_FAILED")), "{family}");
    }
    world.sandbox.plan_next(Plan::completed().taking(Duration::from_secs(40)));
    let sold = bot.buy("gemini").await.unwrap();
    assert_eq!(bot.wait("gemini", &text(&sold["task_uuid"])).await, ("completed".to_owned(), None));
}

#[tokio::test]
async fn a_failure_has_its_reason_where_every_client_looks() {
    let world = World::new().await;
    let id = buy(&world, O3, Plan::completed().lost().taking(Duration::from_mins(20))).await;
    let url = world.purchase(&id).callback_url.unwrap();
    world.webhook(&url, failed(&id, "CONTENT_POLICY_VIOLATION")).await.expect(200);
    let told = status(&world, O3, &id).await;
    assert_eq!((&told["message"], &told["model"]), (&json!("CONTENT_POLICY_VIOLATION"), &json!("kling-o3-video-5s")));
    let known = world.get("/v1/error-codes/CONTENT_POLICY_VIOLATION").await.expect(200);
    assert_eq!(told["description"], known["description"]);
}

#[tokio::test]
async fn repeats_push_nothing_out_and_a_repeat_of_one_that_runs_tells_how_far_it_is() {
    let world = World::new().await;
    let id = buy(&world, "sora", Plan::completed().lost().taking(Duration::from_mins(20))).await;
    let url = world.purchase(&id).callback_url.unwrap();
    for percent in [10, 50, 90] {
        let running = json!({"generation_id": id, "status": "processing", "progress_pct": percent});
        world.webhook(&url, running.to_string()).await.expect(200);
        assert_eq!(status(&world, "sora", &id).await["progress_pct"], json!(percent));
    }
    let done = json!({"generation_id": id, "status": "completed", "video_url": "https://x/v.mp4", "more": 1});
    world.webhook(&url, done.to_string()).await.expect(200);
    let less = json!({"generation_id": id, "status": "completed", "video_url": "https://x/v.mp4"});
    for _ in 0..8 {
        world.webhook(&url, less.to_string()).await.expect(200);
    }
    let told = status(&world, "sora", &id).await;
    assert_eq!((&told["more"], told.get("progress_pct")), (&json!(1), None));
}
