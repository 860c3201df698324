//! A world for one test: the simulated provider, the service and a client, on a clock that the test moves.

use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener};
use std::sync::Arc;
use std::time::Duration;

use recoup::app::{App, Listeners};
use recoup::clock::{Clock, ManualClock};
use recoup::config::Config;
use recoup::domain::time::Time;
use recoup::sandbox::{Fate, Plan, Purchase, Sandbox, Settings};
use recoup::secret::Secret;
use reqwest::Method;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio_util::sync::CancellationToken;
use url::Url;

pub(crate) const KEY: &str = "the key that may do everything";
pub(crate) const PROVIDER_KEY: &str = "the provider's key";
pub(crate) const O3: &str = "kling/o3-video";

/// For a second listener: which port it got, the world's configuration tells.
pub(crate) const ANY_PORT: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 0);

/// 2026-11-23T10:00:00Z
pub(crate) const START: Time = Time::from_ms(1_795_428_000_000);

pub(crate) struct World {
    pub clock: Arc<ManualClock>,
    pub sandbox: Arc<Sandbox>,
    pub url: String,
    pub provider_url: String,
    pub folder: TempDir,
    pub config: Config,
    pub http: reqwest::Client,
    /// Whether the provider is told where to call back.
    pub public: bool,
    app: Option<(App, CancellationToken)>,
    provider: (tokio::task::JoinHandle<()>, CancellationToken),
}

/// How often a test repeats what it does: a few times, unless the environment asks for more.
pub(crate) fn often(variable: &str, usual: u64) -> u64 {
    std::env::var(variable).map_or(usual, |number| number.parse().unwrap())
}

/// An answer, read whole.
#[derive(Debug)]
pub(crate) struct Answer {
    pub status: u16,
    pub headers: reqwest::header::HeaderMap,
    pub body: Value,
}

impl Answer {
    #[track_caller]
    pub(crate) fn expect(self, status: u16) -> Value {
        assert_eq!(self.status, status, "{}", self.body);
        self.body
    }

    /// A problem of this status and code.
    #[track_caller]
    pub(crate) fn problem(self, status: u16, code: &str) -> Value {
        assert_eq!(self.status, status, "{}", self.body);
        assert_eq!(self.headers["content-type"], "application/problem+json");
        assert_eq!(self.body["code"], code, "{}", self.body);
        assert_eq!(self.body["status"], status);
        for field in ["type", "title", "detail", "request_id"] {
            assert!(self.body[field].as_str().is_some_and(|text| !text.is_empty()), "{field}: {}", self.body);
        }
        assert_eq!(self.body["request_id"].as_str(), self.headers["x-request-id"].to_str().ok());
        self.body
    }
}

impl World {
    pub(crate) async fn new() -> Self {
        Self::with(|_| {}).await
    }

    /// A world whose configuration differs from the defaults.
    pub(crate) async fn with(change: impl FnOnce(&mut Config)) -> Self {
        Self::with_provider(Settings::default(), change).await
    }

    pub(crate) async fn with_provider(settings: Settings, change: impl FnOnce(&mut Config)) -> Self {
        Self::set_up(settings, true, change).await
    }

    /// A world in which the provider does not reach the service.
    pub(crate) async fn without_public_address() -> Self {
        Self::set_up(Settings::default(), false, |_| {}).await
    }

    pub(crate) async fn set_up(settings: Settings, public: bool, change: impl FnOnce(&mut Config)) -> Self {
        let clock = Arc::new(ManualClock::new(START));
        let settings = Settings { api_key: Some(PROVIDER_KEY.to_owned()), ..settings };
        let sandbox = Sandbox::new(settings, clock.clone()).unwrap();
        let listener = tokio::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let provider_url = format!("http://{}", listener.local_addr().unwrap());
        let stop = CancellationToken::new();
        let serving = Arc::clone(&sandbox).serve(listener, stop.clone());
        #[expect(clippy::disallowed_methods, reason = "a test watches it by the token")]
        let provider = (tokio::spawn(async move { serving.await.unwrap() }), stop);
        let folder = tempfile::tempdir().unwrap();
        let mut config = Config::default();
        config.database.url = format!("sqlite://{}", folder.path().join("recoup.db").display());
        config.provider.base_url = Url::parse(&provider_url).unwrap();
        config.provider.api_key = Secret::new(PROVIDER_KEY);
        config.webhook.secrets = vec![Secret::new("a secret for callback URLs")];
        config.api.key = Secret::new(KEY);
        change(&mut config);
        let http = recoup::provider::http_client(Duration::from_mins(1)).unwrap();
        let mut world = Self {
            clock,
            sandbox,
            url: String::new(),
            provider_url,
            folder,
            config,
            http,
            public,
            app: None,
            provider,
        };
        world.start().await;
        world
    }

    async fn start(&mut self) {
        let public = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        self.url = format!("http://{}", public.local_addr().unwrap());
        if self.public {
            self.config.server.public_url = Some(Url::parse(&self.url).unwrap());
        }
        let admin = self.config.server.admin_listen.as_mut().map(|address| {
            let listener = TcpListener::bind(*address).unwrap();
            *address = listener.local_addr().unwrap();
            listener
        });
        let stop = CancellationToken::new();
        let listeners = Listeners { public, admin };
        let app = App::start(&self.config, listeners, self.clock.clone(), stop.clone()).await.unwrap();
        self.app = Some((app, stop));
        self.idle().await;
    }

    /// Stops the service in good order and starts it again on the same database.
    pub(crate) async fn restart(&mut self) {
        self.stop().await;
        self.start().await;
    }

    /// Starts the service that was stopped.
    pub(crate) async fn resume(&mut self) {
        self.start().await;
    }

    pub(crate) async fn stop(&mut self) {
        let (app, stop) = self.app.take().unwrap();
        stop.cancel();
        app.stopped().await.unwrap();
    }

    /// Moves time, and waits until the provider has sent and the sweeper has done all that this made due.
    pub(crate) async fn advance(&self, span: Duration) {
        self.clock.advance(span);
        let now = self.clock.now();
        self.sandbox.until(|ledger| ledger.iter().all(|bought| bought.attempts.len() >= due(bought, now))).await;
        self.idle().await;
    }

    pub(crate) async fn advance_s(&self, seconds: u64) {
        self.advance(Duration::from_secs(seconds)).await;
    }

    pub(crate) fn clock_now(&self) -> Time {
        self.clock.now()
    }

    /// Waits until the sweeper sleeps beyond the present time.
    pub(crate) async fn idle(&self) {
        let (app, _) = self.app.as_ref().unwrap();
        let now = self.clock.now();
        let mut sweeper = app.sweeper();
        sweeper.wait_for(|swept| swept.idle_until.is_some_and(|until| until > now)).await.unwrap();
    }

    /// Waits until the provider was asked so often about everything together, and the answers are taken in.
    pub(crate) async fn after_reads(&self, count: usize) {
        self.sandbox.until(|ledger| ledger.iter().map(|bought| bought.reads.len()).sum::<usize>() >= count).await;
        self.idle().await;
    }

    pub(crate) fn reads(&self) -> usize {
        self.sandbox.ledger().iter().map(|bought| bought.reads.len()).sum()
    }

    pub(crate) async fn send(&self, method: Method, path: &str, key: Option<&str>, body: Option<&Value>) -> Answer {
        let mut request = self.http.request(method, format!("{}{path}", self.url));
        if let Some(key) = key {
            request = request.bearer_auth(key);
        }
        if let Some(body) = body {
            request = request.json(body);
        }
        Self::read(request.send().await.unwrap()).await
    }

    pub(crate) async fn read(response: reqwest::Response) -> Answer {
        let (status, headers) = (response.status().as_u16(), response.headers().clone());
        let text = response.text().await.unwrap();
        let body = serde_json::from_str(&text).unwrap_or(Value::String(text));
        Answer { status, headers, body }
    }

    pub(crate) async fn get(&self, path: &str) -> Answer {
        self.send(Method::GET, path, Some(KEY), None).await
    }

    pub(crate) async fn post(&self, path: &str, body: &Value) -> Answer {
        self.send(Method::POST, path, Some(KEY), Some(body)).await
    }

    pub(crate) async fn patch(&self, path: &str, body: &Value) -> Answer {
        self.send(Method::PATCH, path, Some(KEY), Some(body)).await
    }

    /// A generation as the API shows it.
    pub(crate) async fn generation(&self, id: &str) -> Value {
        self.get(&format!("/v1/generations/{id}")).await.expect(200)
    }

    /// The same as lists and events show it: without every link of the result.
    pub(crate) async fn generation_in_lists(&self, id: &str) -> Value {
        let mut shown = self.generation(id).await;
        shown.as_object_mut().unwrap().remove("results");
        shown
    }

    /// The timeline's entries of one kind.
    pub(crate) async fn timeline(&self, id: &str, kind: &str) -> Vec<Value> {
        let all = self.get(&format!("/v1/generations/{id}/timeline")).await.expect(200);
        let entries = all["data"].as_array().unwrap().clone();
        entries.into_iter().filter(|entry| entry["kind"] == kind).collect()
    }

    /// The types of the events of a generation, in order.
    pub(crate) async fn events(&self, id: &str) -> Vec<String> {
        let events = self.timeline(id, "event").await;
        for (n, event) in (1_u64..).zip(&events) {
            assert_eq!(event["sequence"], n, "sequence without gaps");
        }
        events.iter().map(|event| event["type"].as_str().unwrap().to_owned()).collect()
    }

    /// Prepares a generation; gives its id and callback URL.
    pub(crate) async fn prepare(&self) -> (String, String) {
        let prepared = self.post("/v1/generations", &json!({"family": O3})).await.expect(201);
        (text(&prepared["id"]), text(&prepared["callback_url"]))
    }

    /// Registers a generation bought elsewhere: 5 seconds in standard, expected within three minutes.
    pub(crate) async fn register(&self, provider_id: &str) -> String {
        let body = json!({
            "generation_id": provider_id, "family": O3, "model": "kling_o3", "duration_seconds": 5, "price": "0.1500",
        });
        text(&self.post("/v1/generations", &body).await.expect(201)["id"])
    }

    /// Prepares, buys at the sandbox with that fate, binds. 5 seconds in standard.
    pub(crate) async fn buy(&self, plan: Plan) -> Bought {
        self.buy_with(plan, json!({})).await
    }

    pub(crate) async fn buy_with(&self, plan: Plan, extra: Value) -> Bought {
        let mut body = json!({"family": O3, "model": "kling_o3", "duration_seconds": 5});
        body.as_object_mut().unwrap().extend(extra.as_object().unwrap().clone());
        let prepared = self.post("/v1/generations", &body).await.expect(201);
        self.sandbox.plan_next(plan);
        let purchase = json!({"prompt": "a paper boat", "callback_url": prepared["callback_url"]});
        let answer = self
            .http
            .post(format!("{}/v1/{O3}/generate", self.provider_url))
            .bearer_auth(PROVIDER_KEY)
            .json(&purchase)
            .send()
            .await
            .unwrap();
        let bought = Self::read(answer).await.expect(201);
        let id = text(&prepared["id"]);
        let bind = json!({"generation_id": bought["generation_id"], "price": bought["price"]});
        self.patch(&format!("/v1/generations/{id}"), &bind).await.expect(200);
        Bought { id, provider_id: text(&bought["generation_id"]), callback_url: text(&prepared["callback_url"]) }
    }

    /// The provider's own record of a purchase.
    pub(crate) fn purchase(&self, provider_id: &str) -> Purchase {
        self.sandbox.ledger().into_iter().find(|bought| bought.id == provider_id).unwrap()
    }

    /// A webhook, by hand.
    pub(crate) async fn webhook(&self, url: &str, body: impl Into<reqwest::Body>) -> Answer {
        Self::read(self.http.post(url).body(body).send().await.unwrap()).await
    }

    /// The standing callback URL of O3 video.
    pub(crate) fn standing_url(&self) -> String {
        let keys = recoup::domain::callback::CallbackKeys::new(self.config.webhook.secrets.iter().map(Secret::expose));
        let family = recoup::domain::family::Family::of(O3).unwrap();
        let token = keys.mint(family, recoup::domain::callback::Reference::Standing).unwrap();
        format!("{}/webhooks/{O3}/{token}", self.url)
    }
}

/// The webhooks that the provider has sent at least once by `now`.
fn due(bought: &Purchase, now: Time) -> usize {
    if bought.callback_url.is_none() || bought.plan.fate == Fate::NeverEnds {
        return 0;
    }
    let webhooks = bought.plan.webhooks.iter();
    webhooks.filter(|ping| bought.ends_at + Duration::from_millis(ping.after_ms) <= now).count()
}

impl Drop for World {
    fn drop(&mut self) {
        self.provider.1.cancel();
        self.provider.0.abort();
        if let Some((_, stop)) = &self.app {
            stop.cancel();
        }
    }
}

pub(crate) struct Bought {
    pub id: String,
    pub provider_id: String,
    pub callback_url: String,
}

pub(crate) fn text(value: &Value) -> String {
    value.as_str().unwrap_or_else(|| panic!("{value} is no text")).to_owned()
}

pub(crate) fn completed(id: &str, url: &str) -> String {
    json!({"generation_id": id, "status": "completed", "video_url": url, "model": "kling-o3-video-5s", "message": null})
        .to_string()
}

pub(crate) fn failed(id: &str, message: &str) -> String {
    json!({"generation_id": id, "status": "failed", "video_url": null, "model": "kling-o3-video-5s", "message": message})
        .to_string()
}
