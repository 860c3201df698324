//! Somebody guesses API keys: he is slowed down, over the API and at the login alike, and nobody else notices.

use std::time::Duration;

use recoup::config::{ApiKey, Config, Scope};
use recoup::secret::Secret;
use reqwest::header::RETRY_AFTER;

use crate::support::{Answer, KEY, World, completed};

const OTHER: &str = "another key that may read";
/// Behind a proxy of ours, with somebody honest.
const SHARED: &str = "203.0.113.7";

fn behind_a_proxy(config: &mut Config) {
    config.webhook.trusted_proxies = vec!["127.0.0.0/8".parse().unwrap()];
    config.api.keys = vec![ApiKey { name: "other".to_owned(), secret: Secret::new(OTHER), scopes: vec![Scope::Read] }];
}

async fn come(world: &World, from: &str, key: &str) -> Answer {
    let request = world.http.get(format!("{}/v1/models", world.url)).bearer_auth(key).header("x-forwarded-for", from);
    World::read(request.send().await.unwrap()).await
}

async fn log_in(world: &World, from: &str, key: &str) -> Answer {
    let form = url::form_urlencoded::Serializer::new(String::new()).append_pair("key", key).finish();
    let request = world.http.post(format!("{}/login", world.url)).header("x-forwarded-for", from);
    let request = request.header("content-type", "application/x-www-form-urlencoded").header("origin", &world.url);
    World::read(request.body(form).send().await.unwrap()).await
}

#[tokio::test]
async fn guessing_is_slowed_down_and_locks_out_nobody() {
    let world = World::with(behind_a_proxy).await;
    come(&world, SHARED, KEY).await.expect(200);
    for nth in 0..100 {
        come(&world, SHARED, &format!("guess {nth}")).await.problem(401, "UNAUTHORIZED");
        assert_eq!(log_in(&world, SHARED, &format!("guess {nth} again")).await.status, 401);
    }
    let refused = come(&world, SHARED, "one guess more").await;
    assert_eq!(refused.headers[RETRY_AFTER], "3");
    refused.problem(429, "TOO_MANY_WRONG_KEYS");
    come(&world, SHARED, OTHER).await.problem(429, "TOO_MANY_WRONG_KEYS");
    let at_the_login = log_in(&world, SHARED, OTHER).await;
    assert_eq!((at_the_login.status, at_the_login.headers[RETRY_AFTER].to_str().unwrap()), (429, "3"));

    come(&world, SHARED, KEY).await.expect(200);
    come(&world, "198.51.100.8", OTHER).await.expect(200);
    world.advance(Duration::from_secs(3)).await;
    come(&world, SHARED, "one guess more").await.problem(401, "UNAUTHORIZED");
    come(&world, SHARED, "and another").await.problem(429, "TOO_MANY_WRONG_KEYS");
    world.advance(Duration::from_secs(3)).await;
    come(&world, SHARED, OTHER).await.expect(200);
}

#[tokio::test]
async fn who_makes_up_where_he_comes_from_is_counted_all_the_same() {
    let world = World::new().await;
    let mut looked_at = 0;
    for nth in 0..240 {
        looked_at += u32::from(come(&world, &format!("203.0.113.{nth}"), "a guess").await.status == 401);
    }
    assert_eq!(looked_at, 200);
}

#[tokio::test]
async fn webhooks_are_taken_whatever_key_they_carry() {
    let world = World::new().await;
    let url = world.standing_url();
    let carrying = async |nth: u32, url: &str| {
        let request = world.http.post(url).bearer_auth("a key of the provider's");
        World::read(request.body(completed(&format!("p-{nth}"), "https://x/v")).send().await.unwrap()).await
    };
    for nth in 0..300 {
        carrying(nth, &url).await.expect(200);
    }
    carrying(300, &url.replace("any.", "any.x")).await.problem(404, "NOT_FOUND");
    come(&world, SHARED, KEY).await.expect(200);
}
