//! The same bought again: told in the diagnosis and the evidence, and listed.

use recoup::sandbox::Plan;
use serde_json::{Value, json};

use crate::support::{Bought, World, text};

async fn buy(world: &World, prompt: &str) -> Bought {
    world.buy_with(Plan::completed(), json!({"prompt": prompt})).await
}

/// The ids that are listed, page by page.
async fn doubled(world: &World, more: &str) -> Vec<String> {
    let (mut ids, mut cursor) = (Vec::new(), String::new());
    loop {
        let page = world.get(&format!("/v1/generations?doubled=true&limit=2{more}{cursor}")).await.expect(200);
        ids.extend(page["data"].as_array().unwrap().iter().map(|row| text(&row["id"])));
        let Some(next) = page["next_cursor"].as_str() else { return ids };
        cursor = format!("&cursor={next}");
    }
}

async fn twice(world: &World, id: &str) -> (String, Value) {
    let diagnosis = world.get(&format!("/v1/generations/{id}/diagnosis")).await.expect(200);
    let answers = diagnosis["answers"].as_array().unwrap();
    let answer = answers.iter().find(|answer| answer["question"] == "Was it charged twice?").unwrap();
    let facts = answer["facts"].as_array().unwrap().iter().map(|fact| (text(&fact["fact"]), fact["value"].clone()));
    (text(&answer["text"]), Value::Object(facts.collect()))
}

#[tokio::test]
async fn equal_purchases_are_told_with_their_sum_and_listed() {
    let world = World::new().await;
    let alone = buy(&world, "another boat").await;
    let one = buy(&world, "a boat").await;
    world.advance_s(599).await;
    let two = buy(&world, "a boat").await;
    world.advance_s(2).await;
    // Ten minutes from the second, more from the first.
    let three = buy(&world, "a boat").await;
    let (said, facts) = twice(&world, &two.id).await;
    assert!(said.contains(&one.id) && said.contains(&three.id), "{said}");
    assert!(said.contains("charged 0.4500 USD; that is 0.3000 USD more than one purchase"), "{said}");
    assert_eq!((&facts["charged_together"], &facts["charged_beyond_one"]), (&json!("0.4500"), &json!("0.3000")));
    let named: Vec<_> = facts["equal_purchases"].as_array().unwrap().iter().map(|one| text(&one["id"])).collect();
    assert_eq!(named, [one.id.clone(), three.id.clone()]);
    let (said, facts) = twice(&world, &one.id).await;
    assert!(said.contains(&two.id) && !said.contains(&three.id), "{said}");
    assert_eq!(facts["charged_beyond_one"], "0.1500");
    let (said, facts) = twice(&world, &alone.id).await;
    assert!(said.starts_with("No. ") && facts["equal_purchases"] == json!([]), "{said}");
    let evidence = world.get(&format!("/v1/generations/{}/evidence", one.id)).await.expect(200);
    assert_eq!(evidence["equal_purchases"][0]["generation_id"], two.provider_id.as_str());
    assert_eq!(doubled(&world, "").await, [three.id.clone(), two.id.clone(), one.id.clone()]);
    assert_eq!(doubled(&world, "&order=asc&credits=delivered").await, [one.id]);
    world.get("/v1/generations?doubled=perhaps").await.problem(400, "INVALID_QUERY");
}

#[tokio::test]
async fn only_purchases_that_were_or_may_have_been_made_are_doubled() {
    let world = World::new().await;
    let prepare = json!({"family": "kling/o3-video", "model": "kling_o3", "duration_seconds": 5, "prompt": "a boat"});
    let prepared = text(&world.post("/v1/generations", &prepare).await.expect(201)["id"]);
    let one = buy(&world, "a boat").await;
    assert_eq!(doubled(&world, "").await, Vec::<String>::new(), "one is only prepared");
    // Told of afterwards, and what it is for later still.
    let told =
        json!({"family": "kling/o3-video", "generation_id": "elsewhere", "model": "kling_o3", "duration_seconds": 5});
    let told = text(&world.post("/v1/generations", &told).await.expect(201)["id"]);
    assert_eq!(doubled(&world, "").await, Vec::<String>::new());
    world.patch(&format!("/v1/generations/{told}"), &json!({"prompt": "a boat"})).await.expect(200);
    let (said, facts) = twice(&world, &told).await;
    assert!(said.contains(&one.id) && !said.contains(&prepared), "{said}");
    assert_eq!((&facts["charged_together"], &facts["prices_unknown"]), (&json!("0.1500"), &json!(1)));
    assert_eq!(doubled(&world, "").await, [told.clone(), one.id.clone()]);
    // The prepared one is bought, too.
    world.patch(&format!("/v1/generations/{prepared}"), &json!({"generation_id": "p-9"})).await.expect(200);
    assert_eq!(doubled(&world, "").await, [told, one.id, prepared]);
}
