//! The demo's client: an application that buys videos as the provider documents, and asks recoup what became of them.

use std::time::Duration;

use anyhow::{Context, bail};
use serde::Deserialize;
use serde_json::{Value, json};
use url::Url;

use super::cast::Role;
use crate::provider::http_client;

pub(super) const API_KEY: &str = "demo-key-for-loopback-only";
pub(super) const PROVIDER_KEY: &str = "the-simulated-providers-key";
/// The longest `?wait` is 60 seconds.
const TIMEOUT: Duration = Duration::from_secs(70);

/// A generation as recoup shows it.
#[derive(Clone, Debug, Deserialize)]
pub(super) struct Shown {
    pub(super) id: String,
    pub(super) generation_id: Option<String>,
    pub(super) status: String,
    pub(super) result_url: Option<String>,
    pub(super) error: Option<ShownError>,
    pub(super) price: Option<String>,
    pub(super) credits: String,
    pub(super) recovered: bool,
    pub(super) settled_at: Option<String>,
    pub(super) checks: u32,
    pub(super) deliveries: u32,
}

#[derive(Clone, Debug, Deserialize)]
pub(super) struct ShownError {
    pub(super) code: Option<String>,
    pub(super) solution: String,
}

#[derive(Clone, Debug)]
pub(super) struct Client {
    http: reqwest::Client,
    recoup: String,
    provider: String,
}

impl Client {
    pub(super) fn new(recoup: &Url, provider: &Url) -> anyhow::Result<Self> {
        let base = |url: &Url| url.as_str().trim_end_matches('/').to_owned();
        Ok(Self { http: http_client(TIMEOUT)?, recoup: base(recoup), provider: base(provider) })
    }

    pub(super) fn base_url(&self) -> &str {
        &self.recoup
    }

    /// Prepares at recoup, buys at the provider, tells recoup what was bought. Gives our id back.
    pub(super) async fn buy(&self, role: &Role) -> anyhow::Result<String> {
        let prepare = json!({
            "family": "kling/o3-video", "model": role.model, "duration_seconds": role.seconds, "prompt": role.prompt,
        });
        let prepared = self.call(self.http.post(format!("{}/v1/generations", self.recoup)), &prepare, API_KEY).await?;
        let purchase = json!({
            "prompt": role.prompt, "model": role.model, "duration": role.seconds.to_string(),
            "callback_url": prepared["callback_url"],
        });
        let url = format!("{}/v1/kling/o3-video/generate", self.provider);
        let bought = self.call(self.http.post(url), &purchase, PROVIDER_KEY).await?;
        let id = prepared["id"].as_str().context("recoup gave no id")?.to_owned();
        let bind = json!({"generation_id": bought["generation_id"], "price": bought["price"]});
        self.call(self.http.patch(format!("{}/v1/generations/{id}", self.recoup)), &bind, API_KEY).await?;
        Ok(id)
    }

    /// Waits until a generation is final.
    pub(super) async fn wait(&self, id: &str) -> anyhow::Result<Shown> {
        loop {
            let shown = self.read(&format!("{}/v1/generations/{id}?wait=60", self.recoup)).await?;
            if shown.settled_at.is_some() {
                return Ok(shown);
            }
        }
    }

    /// A generation as it is now.
    pub(super) async fn get(&self, id: &str) -> anyhow::Result<Shown> {
        self.read(&format!("{}/v1/generations/{id}", self.recoup)).await
    }

    async fn read(&self, url: &str) -> anyhow::Result<Shown> {
        Ok(self.http.get(url).bearer_auth(API_KEY).send().await?.error_for_status()?.json().await?)
    }

    async fn call(&self, request: reqwest::RequestBuilder, body: &Value, key: &str) -> anyhow::Result<Value> {
        let response = request.bearer_auth(key).json(body).send().await?;
        let (status, url) = (response.status(), response.url().path().to_owned());
        let body = response.text().await?;
        if !status.is_success() {
            bail!("{url} answered {status}: {body}");
        }
        Ok(serde_json::from_str(&body)?)
    }
}
