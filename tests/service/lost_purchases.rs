//! Purchases whose answer was lost, and lists: what stands in one is found, what cannot be told apart is left to a person, and one
//! read of a list takes the place of several.

use std::time::Duration;

use recoup::sandbox::{Fault, Lists, Plan};
use serde_json::{Value, json};

use crate::support::{Answer, KEY, O3, PROVIDER_KEY, World, text};

const BUY: &str = "/gateway/v1/kling/o3-video/generate";

async fn with_lists(lists: Lists) -> World {
    let world = World::new().await;
    world.sandbox.set_lists(lists);
    world
}

impl World {
    /// Buys at the provider itself, past recoup.
    async fn buy_past(&self, family: &str, body: &Value, plan: Plan) -> String {
        self.sandbox.plan_next(plan);
        let request = self.http.post(format!("{}/v1/{family}/generate", self.provider_url)).bearer_auth(PROVIDER_KEY);
        let sold = Self::read(request.json(body).send().await.unwrap()).await.expect(201);
        text(sold.get("generation_id").or(sold.get("task_uuid")).unwrap())
    }

    /// Buys through the gateway, and the answer gets lost, and every webhook.
    async fn lose(&self, body: &Value, is_sold: bool) -> String {
        self.sandbox.plan_next(Plan::completed().lost());
        self.sandbox.fault_next_submit(if is_sold { Fault::Cut } else { Fault::ServerError });
        let lost = self.post(BUY, body).await;
        assert!(matches!(lost.status, 500 | 504), "{}", lost.status);
        lost.headers["recoup-generation"].to_str().unwrap().to_owned()
    }

    /// Moves time by half a minute, in which lost purchases are looked for several times.
    async fn look_for_it(&self) {
        for _ in 0..15 {
            self.advance_s(2).await;
            // A round trip, in which the service gets on with what is due.
            for _ in 0..4 {
                self.get("/livez").await.expect(200);
            }
            self.idle().await;
        }
        // On a busy machine the service may not have got to it yet.
        for _ in 0..5_000 {
            if !self.sandbox.list_reads().is_empty() {
                return self.idle().await;
            }
            self.get("/livez").await.expect(200);
            self.idle().await;
        }
        panic!("nobody looked");
    }

    async fn diagnosis(&self, id: &str) -> Value {
        self.get(&format!("/v1/generations/{id}/diagnosis")).await.expect(200)
    }
}

fn order(prompt: &str) -> Value {
    json!({"prompt": prompt, "model": "kling_o3_pro", "duration": "10", "aspect_ratio": "9:16"})
}

async fn again(world: &World, body: &Value) -> Answer {
    let request = world.http.post(format!("{}{BUY}", world.url)).bearer_auth(KEY).header("prefer", "wait=0");
    World::read(request.json(body).send().await.unwrap()).await
}

#[tokio::test]
async fn a_lost_purchase_is_found_in_a_list_and_its_repeat_answered_with_it() {
    for lists in [Lists::Everywhere, Lists::AllKling] {
        let world = with_lists(lists).await;
        world.post(BUY, &order("another")).await.expect(201);
        let id = world.lose(&order("a boat"), true).await;
        world.look_for_it().await;
        let bought = world.sandbox.ledger().pop().unwrap();
        let shown = world.generation(&id).await;
        assert_eq!((&shown["generation_id"], &shown["attention"]), (&json!(bought.id), &Value::Null), "{lists:?}");
        assert!(matches!(shown["status"].as_str(), Some("pending" | "processing")), "{shown}");
        let note = world.timeline(&id, "note").await.remove(0);
        assert!(text(&note["text"]).contains(&bought.id), "{note}");
        let repeated = again(&world, &order("a boat")).await;
        assert_eq!((repeated.status, &repeated.body["generation_id"]), (201, &json!(bought.id)));
        assert_eq!(world.sandbox.ledger().len(), 2, "nothing was bought again");
        // From here on it is one like any other.
        world.advance(Duration::from_mins(9)).await;
        for _ in 0..50 {
            world.get("/livez").await.expect(200);
            world.advance_s(1).await;
        }
        assert_eq!(world.generation(&id).await["status"], "completed", "{:?}", world.timeline(&id, "check").await);
    }
}

#[tokio::test]
async fn what_is_not_there_is_not_found_and_a_list_that_is_not_there_is_asked_for_once_an_hour() {
    let world = with_lists(Lists::Absent).await;
    let id = world.lose(&order("a boat"), true).await;
    for _ in 0..60 {
        world.advance_s(30).await;
    }
    assert_eq!(world.generation(&id).await["status"], "unconfirmed");
    assert_eq!(world.sandbox.list_reads().len(), 0, "404 is no list");
    let world = with_lists(Lists::Everywhere).await;
    let id = world.lose(&order("a boat"), false).await;
    for _ in 0..120 {
        world.advance_s(30).await;
    }
    assert_eq!(world.generation(&id).await["status"], "unconfirmed", "it was not sold");
    let looks = world.sandbox.list_reads().len();
    assert!((5..=40).contains(&looks), "{looks} reads of the list within an hour");
}

#[tokio::test]
async fn an_equal_one_that_was_bought_before_is_not_taken_for_it() {
    let world = with_lists(Lists::Everywhere).await;
    // Bought past recoup, and done; the list has been read since.
    world.buy_past(O3, &order("a boat"), Plan::completed().taking(Duration::from_mins(1))).await;
    world.advance(Duration::from_mins(20)).await;
    let id = world.lose(&order("a boat"), false).await;
    world.look_for_it().await;
    assert_eq!(world.generation(&id).await["status"], "unconfirmed");
    let told = world.diagnosis(&id).await;
    let before = world.sandbox.ledger()[0].id.clone();
    assert!(told["answers"].to_string().contains(&before), "it may be it for all that is known: {told}");
    assert!(text(&told["next_steps"][0]).contains("PATCH"), "{told}");
    // The next one: by now the list is known, and what stood in it is not new.
    let next = json!({"prompt": "a boat", "model": "kling_o3_pro", "duration": "10", "aspect_ratio": "1:1"});
    let second = world.lose(&next, false).await;
    world.look_for_it().await;
    assert!(!world.diagnosis(&second).await["answers"].to_string().contains(&before));
}

#[tokio::test]
async fn two_that_fit_are_shown_with_both_and_a_person_decides() {
    let world = with_lists(Lists::Everywhere).await;
    let id = world.lose(&order("a boat"), true).await;
    let other = world.buy_past(O3, &order("a boat"), Plan::completed().lost()).await;
    world.look_for_it().await;
    let ledger = world.sandbox.ledger();
    assert_eq!(ledger.len(), 2);
    assert_eq!(world.generation(&id).await["status"], "unconfirmed");
    let told = world.diagnosis(&id).await;
    for bought in &ledger {
        assert!(told["answers"].to_string().contains(&bought.id), "{told}");
    }
    let notes = world.timeline(&id, "note").await;
    assert_eq!(notes.len(), 2, "each is noted once: {notes:?}");
    let own = ledger.iter().map(|bought| bought.id.clone()).find(|bought| *bought != other).unwrap();
    world.patch(&format!("/v1/generations/{id}"), &json!({"generation_id": own})).await.expect(200);
    assert!(!world.diagnosis(&id).await["answers"].to_string().contains(&other), "it is known now");
}

#[tokio::test]
async fn two_equal_ones_that_are_lost_side_by_side_are_not_guessed_at() {
    let world = with_lists(Lists::Everywhere).await;
    let mut ids = Vec::new();
    for key in ["a", "b"] {
        world.sandbox.plan_next(Plan::completed().lost());
        world.sandbox.fault_next_submit(Fault::Cut);
        let request = world.http.post(format!("{}{BUY}", world.url)).bearer_auth(KEY).header("idempotency-key", key);
        let lost = World::read(request.json(&order("a boat")).send().await.unwrap()).await;
        ids.push(lost.headers["recoup-generation"].to_str().unwrap().to_owned());
    }
    world.look_for_it().await;
    for id in &ids {
        assert_eq!(world.generation(id).await["status"], "unconfirmed");
    }
}

#[tokio::test]
async fn one_read_of_a_list_takes_the_place_of_many() {
    let world = with_lists(Lists::Own).await;
    let mut ids = Vec::new();
    for n in 0..12 {
        world.sandbox.plan_next(Plan::completed().lost().taking(Duration::from_mins(2)));
        let sold =
            world.post("/gateway/v1/veo/generate", &json!({"prompt": format!("a paper boat {n}")})).await.expect(201);
        ids.push(text(&sold["generation_id"]));
    }
    world.advance(Duration::from_mins(10) + Duration::from_secs(31)).await;
    for id in &ids {
        let shown = world.generation(id).await;
        assert_eq!(
            (&shown["status"], &shown["source"], &shown["checks"]),
            (&json!("completed"), &json!("check"), &json!(0))
        );
        assert_eq!(world.timeline(id, "check").await.len(), 1, "what the list said is kept as evidence");
    }
    assert_eq!((world.sandbox.list_reads().len(), world.reads()), (1, 0));
}
