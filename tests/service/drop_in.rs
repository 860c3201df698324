//! A client written to the provider's documentation, with nothing but base URL and key changed; and what people ask
//! afterwards: diagnosis and evidence.

use std::process::Command;
use std::time::Duration;

use recoup::sandbox::Plan;
use serde_json::{Value, json};

use crate::support::{KEY, O3, PROVIDER_KEY, World, text};

/// Generate, poll, wait: as the provider's pages show it. Knows nothing of recoup.
struct DocumentedClient<'w> {
    base_url: String,
    key: &'static str,
    world: &'w World,
}

impl DocumentedClient<'_> {
    async fn generate(&self, family: &str, body: &Value) -> Value {
        let url = format!("{}/v1/{family}/generate", self.base_url);
        let answer = self.world.http.post(url).bearer_auth(self.key).json(body).send().await.unwrap();
        assert_eq!(answer.status(), 201);
        answer.json().await.unwrap()
    }

    /// Reads every ten seconds until it is over; gives all answers.
    async fn wait(&self, family: &str, id: &str) -> Vec<Value> {
        let url = format!("{}/v1/{family}/generations/{id}", self.base_url);
        let mut answers: Vec<Value> = Vec::new();
        for _ in 0..100 {
            let answer = self.world.http.get(&url).bearer_auth(self.key).send().await.unwrap();
            assert_eq!(answer.status(), 200);
            let answer: Value = answer.json().await.unwrap();
            let over = matches!(answer["status"].as_str(), Some("completed" | "failed"));
            answers.push(answer);
            if over {
                return answers;
            }
            self.world.advance_s(10).await;
        }
        panic!("it never ended: {answers:?}");
    }
}

#[tokio::test]
async fn an_unmodified_client_works_and_its_polling_costs_nothing() {
    let world = World::new().await;
    let direct = DocumentedClient { base_url: world.provider_url.clone(), key: PROVIDER_KEY, world: &world };
    let through = DocumentedClient { base_url: format!("{}/gateway", world.url), key: KEY, world: &world };
    for (family, id_field) in
        [(O3, "generation_id"), ("gemini", "task_uuid"), ("seedance", "task_uuid"), ("veo", "generation_id")]
    {
        for plan in [Plan::completed(), Plan::failed("TASK_FAILED")] {
            let mut ends = Vec::new();
            for client in [&direct, &through] {
                world.sandbox.plan_next(plan.clone().taking(Duration::from_secs(95)));
                let sold = client.generate(family, &json!({"prompt": "a paper boat"})).await;
                let id = text(&sold[id_field]);
                let answers = client.wait(family, &id).await;
                if client.base_url.ends_with("/gateway") {
                    let reads = world.purchase(&id).reads.len();
                    assert_eq!(json!(reads), world.generation(&id).await["checks"], "polling asked the provider");
                }
                let mut end = answers.last().unwrap().clone();
                assert_eq!(end[id_field], json!(id));
                let fields = end.as_object_mut().unwrap();
                // What differs from one generation to the next.
                let url = world.purchase(&id).result_url();
                assert!(plan != Plan::completed() || Value::Object(fields.clone()).to_string().contains(&url));
                fields.retain(|field, _| matches!(field.as_str(), "status" | "prompt" | "model"));
                ends.push(end);
            }
            let (direct, through) = (&ends[0], &ends[1]);
            assert_eq!((&direct["status"], &direct["prompt"]), (&through["status"], &through["prompt"]), "{family}");
            if family == O3 {
                assert_eq!(direct["model"], through["model"]);
            }
        }
    }
}

#[tokio::test]
async fn a_lost_webhook_is_no_matter_to_the_client() {
    let world = World::new().await;
    let client = DocumentedClient { base_url: format!("{}/gateway", world.url), key: KEY, world: &world };
    world.sandbox.plan_next(Plan::failed("IMAGE_INACCESSIBLE").lost().taking(Duration::from_mins(2)));
    let id = text(&client.generate(O3, &json!({"prompt": "x"})).await["generation_id"]);
    let answers = client.wait(O3, &id).await;
    assert_eq!(answers.last().unwrap()["status"], "failed");
    assert_eq!(answers[0]["video_url"], Value::Null);
    assert!((1..=2).contains(&world.reads()), "{} reads", world.reads());
}

#[tokio::test]
async fn a_diagnosis_says_why_and_what_now_and_cites_its_facts() {
    let world = World::new().await;
    let buy = async |plan: Plan| {
        world.sandbox.plan_next(plan);
        let sold = world.post("/gateway/v1/kling/o3-video/generate", &json!({"prompt": "x"})).await.expect(201);
        text(&sold["generation_id"])
    };
    let refused = buy(Plan::failed("IMAGE_INACCESSIBLE").taking(Duration::from_secs(20))).await;
    let silent = buy(Plan { fate: recoup::sandbox::Fate::Failed { reason: Value::Null }, ..Plan::completed() }
        .taking(Duration::from_secs(20)))
    .await;
    let slow = buy(Plan::completed().taking(Duration::from_mins(9))).await;
    world.advance_s(20).await;
    let diagnose = async |id: &str| world.get(&format!("/v1/generations/{id}/diagnosis")).await.expect(200);
    let answer = |diagnosis: &Value, question: &str| {
        let answers = diagnosis["answers"].as_array().unwrap();
        answers.iter().find(|answer| answer["question"] == question).unwrap().clone()
    };
    let fact = |answer: &Value, name: &str| {
        let facts = answer["facts"].as_array().unwrap();
        facts.iter().find(|fact| fact["fact"] == name).unwrap()["value"].clone()
    };
    let diagnosis = diagnose(&refused).await;
    let why = answer(&diagnosis, "Why did it fail?");
    assert!(text(&why["text"]).contains("Look at images_url."), "{why}");
    assert_eq!(
        (fact(&why, "error.code"), fact(&why, "request.fields")),
        (json!("IMAGE_INACCESSIBLE"), json!(["images_url"]))
    );
    let money = answer(&diagnosis, "Where is the money?");
    assert!(text(&money["text"]).contains("2026-11-23T10:05:20Z"), "{money}");
    assert_eq!(fact(&money, "credits"), "refund_expected");
    assert!(text(&diagnosis["next_steps"][0]).contains("images_url"));
    let why = answer(&diagnose(&silent).await, "Why did it fail?");
    assert!(text(&why["text"]).contains("four usual causes"), "{why}");
    let time = answer(&diagnose(&slow).await, "Is it slow?");
    assert!(
        text(&time["text"]).contains("for 20 s; 5 seconds of kling_o3 usually takes 2 min to 3 min. That is normal."),
        "{time}"
    );
    assert_eq!((fact(&time, "elapsed_seconds"), fact(&time, "expected_seconds")), (json!(20), json!([120, 180])));
    world.advance_s(400).await;
    let time = answer(&diagnose(&slow).await, "Is it slow?");
    assert!(text(&time["text"]).contains("slower than usual"), "{time}");
    assert_eq!(fact(&answer(&diagnose(&refused).await, "Where is the money?"), "credits"), "refunded");
    world.get("/v1/generations/nobody/diagnosis").await.problem(404, "NOT_FOUND");
}

#[tokio::test(flavor = "multi_thread")]
async fn evidence_holds_every_message_with_its_hash_and_no_secret() {
    let world = World::new().await;
    world.sandbox.plan_next(Plan::failed("TIMEOUT").taking(Duration::from_mins(1)));
    let body = json!({"prompt": "x", "callback_url": "https://me.example/hook?secret=mine"});
    let sold = world.post("/gateway/v1/kling/o3-video/generate", &body).await.expect(201);
    let id = text(&sold["generation_id"]);
    world.patch(&format!("/v1/generations/{id}"), &json!({"metadata": {"customer": "private"}})).await.expect(200);
    world.advance_s(60).await;
    world.post(&format!("/v1/generations/{id}/checks"), &json!({})).await.expect(200);
    let answer = world.get(&format!("/v1/generations/{id}/evidence")).await;
    let evidence = answer.expect(200);
    let sha256 = |value: &Value| {
        use sha2::Digest;
        hex::encode(sha2::Sha256::digest(value.as_str().unwrap()))
    };
    let (delivery, check) = (&evidence["deliveries"][0], &evidence["checks"][0]);
    assert_eq!(delivery["sha256"], sha256(&delivery["body"]));
    assert_eq!(check["answer"]["sha256"], sha256(&check["answer"]["body"]));
    assert_eq!(evidence["purchase"]["answer"]["sha256"], sha256(&evidence["purchase"]["answer"]["body"]));
    assert_eq!(evidence["purchase"]["request_sha256"], sha256(&json!(body.to_string())));
    assert_eq!(
        (&evidence["generation"]["price"], &evidence["generation"]["generation_id"]),
        (&json!("0.1500"), &json!(id))
    );
    let page = world.get(&format!("/v1/generations/{id}/evidence?format=md")).await;
    assert_eq!(page.headers["content-type"], "text/markdown; charset=utf-8");
    let page = text(&page.expect(200));
    for part in
        ["# Generation", "## Purchase", "## Webhooks received: 1", "## Status answers: 1", "0.1500 USD", "TIMEOUT"]
    {
        assert!(page.contains(part), "{part}: {page}");
    }
    for secret in ["/webhooks/", "me.example", "private", PROVIDER_KEY, KEY] {
        assert!(!page.contains(secret) && !evidence.to_string().contains(secret), "{secret}");
    }
    world.get(&format!("/v1/generations/{id}/evidence?format=pdf")).await.problem(400, "INVALID_QUERY");
    // The same on the command line, beside the running service.
    let run = |id: &str, format: &str| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_recoup"));
        command.args(["evidence", id, "--format", format]).current_dir(world.folder.path()).env_clear();
        command.env("RECOUP_DATABASE__URL", &world.config.database.url).output().unwrap()
    };
    let printed = run(&id, "json");
    assert!(printed.status.success(), "{}", String::from_utf8_lossy(&printed.stderr));
    let printed: Value = serde_json::from_slice(&printed.stdout).unwrap();
    assert_eq!((&printed["deliveries"], &printed["checks"]), (&evidence["deliveries"], &evidence["checks"]));
    assert!(String::from_utf8(run(&id, "md").stdout).unwrap().contains("## Webhooks received: 1"));
    assert_eq!(run("nobody", "md").status.code(), Some(1));
}

/// The README's examples, run as they stand there.
#[tokio::test(flavor = "multi_thread")]
async fn the_readmes_drop_in_examples_buy_a_video() {
    let world = World::new().await;
    let readme = include_str!("../../README.md");
    let section = readme.split("\n## ").find(|section| section.starts_with("Buy through it")).unwrap();
    for (language, program, arguments) in [
        ("sh", "bash", ["-euc"].as_slice()),
        ("python", "python3", &["-c"]),
        ("js", "node", &["--input-type=module", "-e"]),
    ] {
        let example = section.split(&format!("```{language}\n")).nth(1).unwrap().split("```").next().unwrap();
        let mut command = Command::new(program);
        command.args(arguments).arg(example).env("RECOUP_URL", &world.url).env("RECOUP_KEY", KEY);
        command
            .env_remove("http_proxy")
            .env_remove("HTTP_PROXY")
            .env("NO_PROXY", "127.0.0.1")
            .env("no_proxy", "127.0.0.1");
        let ran = command
            .output()
            .unwrap_or_else(|error| panic!("{program} is needed for the README's {language} example: {error}"));
        let said = String::from_utf8_lossy(&ran.stdout).into_owned();
        assert!(ran.status.success(), "{language}: {said}{}", String::from_utf8_lossy(&ran.stderr));
        let bought = world.sandbox.ledger().pop().unwrap();
        assert!(said.contains(&bought.id), "{language}: {said}");
        assert_eq!(world.generation(&bought.id).await["submitted_via"], "gateway", "{language}");
    }
    assert_eq!(world.sandbox.ledger().len(), 3);
}
