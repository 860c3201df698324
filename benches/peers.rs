//! What `benches/ingest.py` holds recoup against, on the same sockets and the same HTTP server. One argument says which:
//!
//! `nothing`: reads the webhook, verifies an HMAC, answers. `log`: appends the body to a plain file, one flush for all that wait, and
//! answers after it: the physical limit of a durable answer. `pool`: the straightforward way, one transaction for each webhook through
//! a pool of connections. The second argument is the port; files go to the working directory.

#![allow(
    clippy::print_stderr,
    clippy::unwrap_used,
    clippy::disallowed_methods,
    reason = "a benchmark's peer, not the service"
)]

use std::fs::OpenOptions;
use std::io::Write;
use std::net::Ipv4Addr;

use axum::Router;
use axum::body::Bytes;
use axum::http::StatusCode;
use hmac::{Hmac, KeyInit, Mac};
use serde_json::Value;
use sha2::Sha256;
use sqlx::SqlitePool;
use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteSynchronous};
use tokio::sync::{mpsc, oneshot};

/// What every receiver has to do: understand the body and know who sent it.
fn understand(body: &[u8]) -> Option<Value> {
    let mut mac = Hmac::<Sha256>::new_from_slice(b"a secret of the benchmark").ok()?;
    mac.update(b"kling-o3-video standing");
    let expected = [0_u8; 32];
    // Computed and compared, not believed: everybody may come in here.
    let _authentic = mac.verify_slice(&expected).is_ok();
    serde_json::from_slice(body).ok()
}

async fn nothing(body: Bytes) -> StatusCode {
    if understand(&body).is_some() { StatusCode::OK } else { StatusCode::BAD_REQUEST }
}

type Append = (Bytes, oneshot::Sender<()>);

fn log() -> mpsc::Sender<Append> {
    let (sender, mut appends) = mpsc::channel::<Append>(4_096);
    std::thread::spawn(move || {
        let mut file = OpenOptions::new().create(true).append(true).open("webhooks.log").unwrap();
        let (mut group, mut bytes) = (Vec::new(), Vec::new());
        while appends.blocking_recv_many(&mut group, 512) > 0 {
            bytes.clear();
            for (body, _) in &group {
                bytes.extend_from_slice(body);
                bytes.push(b'\n');
            }
            file.write_all(&bytes).unwrap();
            file.sync_data().unwrap();
            for (_, answer) in group.drain(..) {
                answer.send(()).unwrap_or_default();
            }
        }
    });
    sender
}

async fn append(log: mpsc::Sender<Append>, body: Bytes) -> StatusCode {
    if understand(&body).is_none() {
        return StatusCode::BAD_REQUEST;
    }
    let (answer, kept) = oneshot::channel();
    match log.send((body, answer)).await {
        Ok(()) if kept.await.is_ok() => StatusCode::OK,
        Ok(()) | Err(_) => StatusCode::SERVICE_UNAVAILABLE,
    }
}

async fn pool() -> SqlitePool {
    let options = SqliteConnectOptions::new()
        .filename("pool.db")
        .create_if_missing(true)
        .journal_mode(SqliteJournalMode::Wal)
        .synchronous(SqliteSynchronous::Full);
    let pool = SqlitePoolOptions::new().max_connections(10).connect_with(options).await.unwrap();
    for table in [
        "CREATE TABLE deliveries (id INTEGER PRIMARY KEY, at INTEGER NOT NULL, body BLOB NOT NULL) STRICT",
        "CREATE TABLE generations (id INTEGER PRIMARY KEY, provider_id TEXT NOT NULL UNIQUE, status TEXT NOT NULL, url TEXT) STRICT",
        "CREATE TABLE outbox (id INTEGER PRIMARY KEY, provider_id TEXT NOT NULL, kind TEXT NOT NULL) STRICT",
    ] {
        sqlx::query(table).execute(&pool).await.unwrap();
    }
    pool
}

async fn insert(pool: &SqlitePool, body: &[u8]) -> Result<(), sqlx::Error> {
    let notice = understand(body).ok_or(sqlx::Error::RowNotFound)?;
    let text = |name: &str| notice.get(name).and_then(Value::as_str).map(str::to_owned);
    let mut transaction = pool.begin_with("BEGIN IMMEDIATE").await?;
    sqlx::query("INSERT INTO deliveries (at, body) VALUES (unixepoch(), ?1)")
        .bind(body)
        .execute(&mut *transaction)
        .await?;
    sqlx::query(
        "INSERT INTO generations (provider_id, status, url) VALUES (?1, ?2, ?3)
         ON CONFLICT (provider_id) DO UPDATE SET status = excluded.status, url = excluded.url",
    )
    .bind(text("generation_id"))
    .bind(text("status"))
    .bind(text("video_url"))
    .execute(&mut *transaction)
    .await?;
    sqlx::query("INSERT INTO outbox (provider_id, kind) VALUES (?1, 'generation.completed')")
        .bind(text("generation_id"))
        .execute(&mut *transaction)
        .await?;
    transaction.commit().await
}

#[tokio::main]
async fn main() {
    let mut arguments = std::env::args().skip(1).filter(|argument| argument != "--bench");
    let (Some(which), Some(port)) = (arguments.next(), arguments.next().and_then(|port| port.parse().ok())) else {
        eprintln!("usage: peers nothing|log|pool PORT");
        return;
    };
    let router = match which.as_str() {
        "log" => {
            let log = log();
            Router::new().fallback(move |body: Bytes| append(log.clone(), body))
        }
        "pool" => {
            let pool = pool().await;
            Router::new().fallback(move |body: Bytes| {
                let pool = pool.clone();
                async move {
                    insert(&pool, &body).await.map_err(|error| (StatusCode::SERVICE_UNAVAILABLE, error.to_string()))
                }
            })
        }
        _ => Router::new().fallback(nothing),
    };
    let listener = tokio::net::TcpListener::bind((Ipv4Addr::LOCALHOST, port)).await.unwrap();
    axum::serve(listener, router).await.unwrap();
}
