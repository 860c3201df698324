//! Lists: every filter, stable pages, bad values named.

use recoup::sandbox::Plan;
use serde_json::{Value, json};

use crate::support::{O3, World, completed, failed, text};

async fn ids(world: &World, query: &str) -> Vec<String> {
    let list = world.get(&format!("/v1/generations{query}")).await.expect(200);
    list["data"].as_array().unwrap().iter().map(|row| text(&row["id"])).collect()
}

#[tokio::test]
async fn every_filter_finds_its_own() {
    let world = World::new().await;
    let (done, done_url) = world.prepare().await;
    world.webhook(&done_url, completed("p-done", "https://x/v")).await.expect(200);
    let (broken, broken_url) = world.prepare().await;
    world.webhook(&broken_url, failed("p-broken", "INVALID_IMAGE")).await.expect(200);
    let body =
        json!({"generation_id": "p-pro", "model": "kling_o3_pro", "duration_seconds": 5, "metadata": {"user": "42"}});
    let pro = text(&world.post("/v1/generations", &body).await.expect(201)["id"]);
    let body = json!({"generation_id": "p-photo", "family": "kling/o3-photo"});
    let photo = text(&world.post("/v1/generations", &body).await.expect(201)["id"]);
    let recovered = world.buy(Plan::completed().lost().taking(std::time::Duration::ZERO)).await.id;
    world.post(&format!("/v1/generations/{recovered}/checks"), &json!({})).await.expect(200);
    world.webhook(&done_url, failed("p-done", "TIMEOUT")).await.expect(200);
    for (query, expected) in [
        ("?status=failed", vec![&broken]),
        ("?status=failed&status=pending", vec![&photo, &pro, &broken]),
        ("?attention=any", vec![&done]),
        ("?attention=conflict", vec![&done]),
        ("?attention=stuck", vec![]),
        ("?attention=stuck&attention=any", vec![&done]),
        ("?credits=refund_expected", vec![&broken]),
        ("?credits=charged&credits=refund_expected", vec![&photo, &pro, &broken]),
        ("?error_code=INVALID_IMAGE", vec![&broken]),
        ("?error_code=TIMEOUT", vec![]),
        ("?family=kling/o3-photo", vec![&photo]),
        ("?model=kling_o3_pro", vec![&pro]),
        ("?source=check", vec![&recovered]),
        ("?source=webhook", vec![&broken, &done]),
        ("?source=gateway", vec![]),
        ("?metadata[user]=42", vec![&pro]),
        ("?metadata[user]=43", vec![]),
        ("?created_after=2026-11-23T10:00:00Z", vec![]),
        ("?created_before=2026-11-23T10:00:00.001Z&status=failed", vec![&broken]),
        ("?status=pending&order=asc", vec![&pro, &photo]),
    ] {
        assert_eq!(ids(&world, query).await.iter().collect::<Vec<_>>(), expected, "{query}");
    }
}

#[tokio::test]
async fn pages_are_stable_while_rows_arrive() {
    let world = World::new().await;
    let mut all = Vec::new();
    for n in 0..25 {
        all.push(world.register(&format!("p-{n}")).await);
    }
    all.reverse();
    let mut seen = Vec::new();
    let mut query = "?limit=10".to_owned();
    loop {
        let page = world.get(&format!("/v1/generations{query}")).await.expect(200);
        seen.extend(page["data"].as_array().unwrap().iter().map(|row| text(&row["id"])));
        world.register(&format!("new-{}", seen.len())).await;
        assert_eq!(page["has_more"], json!(!page["next_cursor"].is_null()));
        let Value::String(cursor) = &page["next_cursor"] else { break };
        query = format!("?limit=10&cursor={cursor}");
    }
    assert_eq!(seen, all, "every row once, none of those that arrived meanwhile");
}

#[tokio::test]
async fn a_bad_value_is_an_error_that_names_it() {
    let world = World::new().await;
    let cursor = {
        world.register("p-1").await;
        world.register("p-2").await;
        text(&world.get("/v1/generations?limit=1").await.expect(200)["next_cursor"])
    };
    for (query, parameter) in [
        ("status=done".to_owned(), "status"),
        ("attention=yes".to_owned(), "attention"),
        ("credits=gone".to_owned(), "credits"),
        ("family=kling/o9".to_owned(), "family"),
        ("source=rumour".to_owned(), "source"),
        ("limit=0".to_owned(), "limit"),
        ("limit=201".to_owned(), "limit"),
        ("limit=many".to_owned(), "limit"),
        ("limit=1&limit=2".to_owned(), "limit"),
        ("order=random".to_owned(), "order"),
        ("cursor=nonsense".to_owned(), "cursor"),
        (format!("cursor={cursor}&order=asc"), "cursor"),
        ("created_after=yesterday".to_owned(), "created_after"),
        ("color=red".to_owned(), "color"),
        ("metadata[a]=1&metadata[a]=2".to_owned(), "metadata[a]"),
    ] {
        let problem = world.get(&format!("/v1/generations?{query}")).await.problem(400, "INVALID_QUERY");
        assert_eq!(problem["errors"][0]["parameter"], parameter, "{query}");
        assert!(text(&problem["detail"]).starts_with(parameter), "{problem}");
    }
    let problem = world.get("/v1/deliveries?disposition=odd").await.problem(400, "INVALID_QUERY");
    assert_eq!(problem["errors"][0]["parameter"], "disposition");
}

#[tokio::test]
async fn deliveries_are_listed_by_disposition_and_generation() {
    let world = World::new().await;
    let (id, url) = world.prepare().await;
    let (_, other) = world.prepare().await;
    world.webhook(&url, completed("p-1", "https://x/v")).await.expect(200);
    world.webhook(&url, completed("p-1", "https://x/v")).await.expect(200);
    world.webhook(&other, completed("p-2", "https://x/v")).await.expect(200);
    let count = async |query: &str| {
        world.get(&format!("/v1/deliveries{query}")).await.expect(200)["data"].as_array().unwrap().len()
    };
    assert_eq!(count("").await, 3);
    assert_eq!(count(&format!("?generation={id}")).await, 2);
    assert_eq!(count("?generation=p-1").await, 2, "by the provider's id too");
    assert_eq!(count("?generation=nobody").await, 0);
    assert_eq!(count("?disposition=duplicate").await, 1);
    assert_eq!(count("?disposition=duplicate&disposition=accepted&limit=2").await, 2);
    let row = &world.get("/v1/deliveries?limit=1").await.expect(200)["data"][0];
    assert_eq!((&row["family"], &row["reference"]), (&json!(O3), &json!("generation")));
}
