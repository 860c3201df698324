//! Events out: the list, the stream.

use std::time::Duration;

use futures_util::StreamExt;
use recoup::sandbox::{Fate, Plan};
use serde_json::{Value, json};

use crate::support::{KEY, World, completed, failed, text};

/// A connected reader of the stream.
struct Reader {
    bytes: futures_util::stream::BoxStream<'static, reqwest::Result<bytes::Bytes>>,
    buffer: String,
}

impl Reader {
    async fn connect(world: &World, last: Option<&str>) -> Self {
        let mut request = world.http.get(format!("{}/v1/events/stream", world.url)).bearer_auth(KEY);
        if let Some(last) = last {
            request = request.header("last-event-id", last);
        }
        let response = request.send().await.unwrap();
        assert_eq!(response.status(), 200);
        assert_eq!(response.headers()["content-type"], "text/event-stream");
        Self { bytes: response.bytes_stream().boxed(), buffer: String::new() }
    }

    /// The next event: id, type and body. `None` at the end.
    async fn next(&mut self) -> Option<(String, String, Value)> {
        loop {
            if let Some((block, rest)) = self.buffer.split_once("\n\n") {
                let block = block.to_owned();
                self.buffer = String::from(rest);
                let field = |name: &str| {
                    block.lines().find_map(|line| line.strip_prefix(&format!("{name}: ")).map(str::to_owned))
                };
                if let (Some(id), Some(kind), Some(data)) = (field("id"), field("event"), field("data")) {
                    return Some((id, kind, serde_json::from_str(&data).unwrap()));
                }
                continue;
            }
            self.buffer.push_str(std::str::from_utf8(&self.bytes.next().await?.ok()?).unwrap());
        }
    }
}

async fn settle(world: &World, n: usize) {
    let (_, url) = world.prepare().await;
    world.webhook(&url, completed(&format!("p-{n}"), "https://x/v.mp4")).await.expect(200);
}

#[tokio::test]
async fn every_change_is_one_event_with_the_generation_as_it_was_then() {
    let world = World::new().await;
    let bought = world.buy(Plan { fate: Fate::NeverEnds, ..Plan::completed() }).await;
    for _ in 0..6 {
        world.advance(Duration::from_mins(1)).await;
    }
    world.webhook(&bought.callback_url, completed(&bought.provider_id, "https://x/v.mp4")).await.expect(200);
    let list = world.get("/v1/events?order=asc").await.expect(200);
    let events = list["data"].as_array().unwrap();
    let told: Vec<_> = events.iter().map(|event| (text(&event["type"]), event["sequence"].as_u64().unwrap())).collect();
    assert_eq!(told, [("generation.attention".to_owned(), 1), ("generation.completed".to_owned(), 2)]);
    assert_eq!(
        (&events[0]["data"]["status"], &events[0]["data"]["attention"]),
        (&json!("processing"), &json!("overdue"))
    );
    assert_eq!(
        (&events[1]["data"]["status"], &events[1]["data"]["result_url"]),
        (&json!("completed"), &json!("https://x/v.mp4"))
    );
    let now = world.generation_in_lists(&bought.id).await;
    assert_eq!(events[1]["data"], now);
    assert_eq!(
        (&events[1]["generation"], &events[1]["state"]),
        (&json!(bought.id), &json!("delivered")),
        "nowhere to send it"
    );
    let one = world.get(&format!("/v1/events/{}", text(&events[1]["id"]))).await.expect(200);
    assert_eq!((&one["data"], &one["dispatches"]), (&events[1]["data"], &json!([])));
    for (query, found) in [
        ("type=generation.attention", 1),
        ("type=generation.attention&type=generation.completed", 2),
        ("state=pending", 0),
        ("state=delivered", 2),
        (&format!("generation={}", bought.provider_id), 2),
        ("generation=nobody", 0),
    ] {
        let list = world.get(&format!("/v1/events?{query}")).await.expect(200);
        assert_eq!(list["data"].as_array().unwrap().len(), found, "{query}");
    }
    world.get("/v1/events?type=generation.exploded").await.problem(400, "INVALID_QUERY");
    world.get("/v1/events/evt_1").await.problem(404, "NOT_FOUND");
}

#[tokio::test]
async fn a_reader_that_reconnects_at_random_sees_every_event_once_and_in_order() {
    let mut world = World::new().await;
    let mut chance = fastrand::Rng::with_seed(3);
    let mut reader = Reader::connect(&world, None).await;
    let mut seen: Vec<(String, String)> = Vec::new();
    let mut made = 0;
    while seen.len() < 300 {
        for _ in 0..chance.usize(0..90) {
            settle(&world, made).await;
            made += 1;
        }
        for _ in 0..chance.usize(0..60).min(made - seen.len()) {
            let (id, kind, body) = reader.next().await.unwrap();
            assert_eq!(
                (kind.as_str(), &body["type"], &body["sequence"]),
                ("generation.completed", &json!(kind), &json!(1))
            );
            seen.push((id, text(&body["data"]["generation_id"])));
        }
        if chance.bool() {
            if chance.u8(0..4) == 0 {
                world.restart().await;
            }
            // Before its first event a reader has nothing to resume from.
            if let Some((last, _)) = seen.last() {
                reader = Reader::connect(&world, Some(last)).await;
            }
        }
    }
    let order: Vec<_> = seen.iter().map(|(_, id)| id.clone()).collect();
    let expected: Vec<_> = (0..seen.len()).map(|n| format!("p-{n}")).collect();
    assert_eq!(order, expected);
}

#[tokio::test]
async fn a_stream_ends_with_the_service_and_refuses_what_it_cannot_resume() {
    let mut world = World::new().await;
    let mut reader = Reader::connect(&world, None).await;
    let stream = async |last: &str| {
        let request = world.http.get(format!("{}/v1/events/stream", world.url)).bearer_auth(KEY);
        World::read(request.header("last-event-id", last).send().await.unwrap()).await
    };
    stream("7").await.problem(400, "INVALID_HEADER");
    stream("evt_0199d4c2b7a07f3e9b1c2a3d4e5f6071").await.problem(410, "GONE");
    world.send(reqwest::Method::GET, "/v1/events/stream", None, None).await.problem(401, "UNAUTHORIZED");
    let (url, body) = (world.prepare().await.1, failed("p-1", "TIMEOUT"));
    world.webhook(&url, body).await.expect(200);
    assert_eq!(reader.next().await.unwrap().1, "generation.failed");
    world.stop().await;
    assert_eq!(reader.next().await, None);
}
