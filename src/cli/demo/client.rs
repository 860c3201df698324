//! The demo's client: an application that buys videos as the provider documents, and asks recoup what became of them.

use std::time::Duration;

use anyhow::{Context, bail};
use serde::Deserialize;
use serde_json::json;
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
}

impl Client {
    pub(super) fn new(recoup: &Url) -> anyhow::Result<Self> {
        Ok(Self { http: http_client(TIMEOUT)?, recoup: recoup.as_str().trim_end_matches('/').to_owned() })
    }

    pub(super) fn base_url(&self) -> &str {
        &self.recoup
    }

    /// Buys as at the provider, through recoup. Gives recoup's id back.
    pub(super) async fn buy(&self, role: &Role) -> anyhow::Result<String> {
        let purchase = json!({"prompt": role.prompt, "model": role.model, "duration": role.seconds.to_string()});
        let url = format!("{}/gateway/v1/kling/o3-video/generate", self.recoup);
        let response = self.http.post(url).bearer_auth(API_KEY).json(&purchase).send().await?;
        let status = response.status();
        let id = response.headers().get("recoup-generation").and_then(|id| id.to_str().ok()).map(str::to_owned);
        if status.as_u16() != 201 {
            bail!("the purchase was answered {status}: {}", response.text().await?);
        }
        id.context("the answer names no generation")
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
}
