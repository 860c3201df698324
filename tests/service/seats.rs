//! Connections over real sockets: who gets a seat when all are taken, and who keeps it.

use futures_util::StreamExt;
use recoup::config::Confirm;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::support::{KEY, World, completed};

async fn connect(world: &World) -> TcpStream {
    TcpStream::connect(world.url.strip_prefix("http://").unwrap()).await.unwrap()
}

/// Reads until the other side has had enough.
async fn until_closed(mut stream: TcpStream) {
    let mut read = Vec::new();
    // A reset is an end too.
    drop(stream.read_to_end(&mut read).await);
}

#[tokio::test]
async fn silent_connections_make_room_for_newcomers() {
    let world = World::with(|config| config.server.max_connections = 2).await;
    let (first, mut second) = (connect(&world).await, connect(&world).await);
    second.write_all(b"POST / HTTP/1.1\r\nhost: x").await.unwrap();
    let third = connect(&world).await;
    until_closed(first).await;
    world.webhook(&world.standing_url(), completed("p-1", "https://x/v")).await.expect(200);
    until_closed(second).await;
    drop(third);
}

#[tokio::test]
async fn who_has_shown_a_key_is_not_sent_away_for_strangers() {
    let world = World::with(|config| {
        config.server.max_connections = 2;
        config.webhook.confirm = Confirm::Never;
    })
    .await;
    let stream = world.http.get(format!("{}/v1/events/stream", world.url)).bearer_auth(KEY).send().await.unwrap();
    let mut events = stream.bytes_stream();
    let strangers = [connect(&world).await, connect(&world).await, connect(&world).await];
    world.webhook(&world.standing_url(), completed("p-1", "https://x/v")).await.expect(200);
    let told = events.next().await.unwrap().unwrap();
    assert!(told.starts_with(b"id: evt_") || told.starts_with(b"event: "), "{told:?}");
    drop(strangers);
}

#[tokio::test]
async fn a_head_of_too_many_headers_is_refused() {
    let world = World::new().await;
    let mut stream = connect(&world).await;
    let headers = "x: y\r\n".repeat(100);
    stream.write_all(format!("GET /livez HTTP/1.1\r\nhost: x\r\n{headers}\r\n").as_bytes()).await.unwrap();
    let mut answer = [0; 12];
    stream.read_exact(&mut answer).await.unwrap();
    assert_eq!(&answer, b"HTTP/1.1 431");
}
