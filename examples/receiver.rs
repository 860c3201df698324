//! `cargo add axum serde_json standardwebhooks tokio --features tokio/full`
use std::env::var;
use std::error::Error;
use std::io::Write;

use axum::body::Bytes;
use axum::http::{HeaderMap, StatusCode};
use axum::{Router, routing::post, serve};
use standardwebhooks::Webhook;

async fn hook(headers: HeaderMap, body: Bytes) -> Result<StatusCode, StatusCode> {
    let secret = var("WEBHOOK_SECRET").map_err(|_| StatusCode::INTERNAL_SERVER_ERROR)?; // whsec_...
    let webhook = Webhook::new(&secret).map_err(|_| StatusCode::INTERNAL_SERVER_ERROR)?;
    webhook.verify(&body, &headers).map_err(|_| StatusCode::BAD_REQUEST)?;
    let event: serde_json::Value = serde_json::from_slice(&body).map_err(|_| StatusCode::BAD_REQUEST)?;
    let id = headers["webhook-id"].to_str().map_err(|_| StatusCode::BAD_REQUEST)?;
    // Keep it before you answer. The same webhook-id may come again; sequence orders what happened to one generation.
    let line = format!("{id} {} {} {}\n", event["type"], event["sequence"], event["data"]["id"]).replace('"', "");
    std::io::stdout().write_all(line.as_bytes()).map_err(|_| StatusCode::INTERNAL_SERVER_ERROR)?;
    Ok(StatusCode::NO_CONTENT)
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let listener = tokio::net::TcpListener::bind(format!("127.0.0.1:{}", var("PORT")?)).await?;
    Ok(serve(listener, Router::new().route("/", post(hook))).await?)
}
