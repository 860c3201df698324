//! The operator's page: who may look, what is offered to whom, that hostile data stays text, and that its actions are the API's.

use std::time::Duration;

use recoup::clock::Clock;
use recoup::config::{ApiKey, Scope};
use recoup::sandbox::{Fate, Plan};
use recoup::secret::Secret;
use reqwest::header::{HeaderMap, LOCATION, SET_COOKIE};
use reqwest::{Method, StatusCode};
use serde_json::json;

use crate::support::{KEY, World, completed, failed, text};

const READER: &str = "a key that may only look around";

/// A browser: holds a cookie, follows nothing by itself, sends the origin of its forms.
pub(crate) struct Browser<'w> {
    world: &'w World,
    cookie: Option<String>,
}

struct Shown {
    status: StatusCode,
    headers: HeaderMap,
    html: String,
}

impl Shown {
    fn location(&self) -> &str {
        self.headers[LOCATION].to_str().unwrap()
    }
}

impl<'w> Browser<'w> {
    fn new(world: &'w World) -> Self {
        Self { world, cookie: None }
    }

    pub(crate) async fn logged_in(world: &'w World, key: &str) -> Self {
        let mut browser = Self::new(world);
        let answer = browser.post("/login", &[("key", key)]).await;
        assert_eq!(answer.status, 303, "{}", answer.html);
        let cookie = answer.headers[SET_COOKIE].to_str().unwrap();
        assert!(cookie.contains("HttpOnly") && cookie.contains("SameSite=Strict"), "{cookie}");
        assert!(!cookie.contains(key), "the key itself stays out of the browser");
        browser.cookie = cookie.split(';').next().map(str::to_owned);
        browser
    }

    async fn send(&self, method: Method, path: &str, form: &[(&str, &str)], headers: &[(&str, &str)]) -> Shown {
        let mut request = self.world.http.request(method.clone(), format!("{}{path}", self.world.url));
        if let Some(cookie) = &self.cookie {
            request = request.header("cookie", cookie);
        }
        if method == Method::POST {
            let body = url::form_urlencoded::Serializer::new(String::new()).extend_pairs(form).finish();
            request = request.header("content-type", "application/x-www-form-urlencoded").body(body);
        }
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let answer = request.send().await.unwrap();
        let (status, headers) = (answer.status(), answer.headers().clone());
        Shown { status, headers, html: answer.text().await.unwrap() }
    }

    async fn get(&self, path: &str) -> Shown {
        self.send(Method::GET, path, &[], &[]).await
    }

    async fn post(&self, path: &str, form: &[(&str, &str)]) -> Shown {
        self.send(Method::POST, path, form, &[("origin", &self.world.url), ("sec-fetch-site", "same-origin")]).await
    }

    /// A page that is there.
    pub(crate) async fn page(&self, path: &str) -> String {
        let shown = self.get(path).await;
        assert_eq!(shown.status, 200, "{path}: {}", shown.html);
        assert!(shown.html.contains("</html>"), "{path} is whole");
        shown.html
    }
}

const PAGES: [&str; 11] = [
    "/",
    "/trends",
    "/trends?span=90d",
    "/generations",
    "/deliveries",
    "/events",
    "/events/redeliver",
    "/catalogue",
    "/setup",
    "/export/generations.csv",
    "/export/generations.ndjson",
];

fn with_a_reader(config: &mut recoup::config::Config) {
    let key = ApiKey { name: "reader".to_owned(), secret: Secret::new(READER), scopes: vec![Scope::Read] };
    config.api.keys = vec![key];
}

#[tokio::test]
async fn a_stranger_is_sent_to_the_login_and_comes_back_to_where_he_wanted() {
    let world = World::new().await;
    let browser = Browser::new(&world);
    for path in PAGES.iter().chain(&["/generations/gen_1", "/generations/gen_1/evidence.md", "/live"]) {
        let answer = browser.get(path).await;
        assert_eq!((answer.status, answer.location().starts_with("/login")), (StatusCode::SEE_OTHER, true), "{path}");
    }
    let answer = browser.get("/generations?status=failed").await;
    assert_eq!(answer.location(), "/login?next=%2Fgenerations%3Fstatus%3Dfailed");
    let form = browser.get(answer.location()).await;
    assert!(form.html.contains(r#"name="next" value="/generations?status=failed""#), "{}", form.html);
    let entered = browser.post("/login", &[("key", KEY), ("next", "/generations?status=failed")]).await;
    assert_eq!(entered.location(), "/generations?status=failed");
    let lured = browser.post("/login", &[("key", KEY), ("next", "//evil.example/")]).await;
    assert_eq!(lured.location(), "/");
    let wrong = browser.post("/login", &[("key", "none of ours")]).await;
    assert_eq!((wrong.status, wrong.headers.get(SET_COOKIE)), (StatusCode::UNAUTHORIZED, None));
    for path in ["/generations/gen_1/check", "/events/redeliver", "/deliveries/dlv_1/replay"] {
        assert_eq!(browser.post(path, &[]).await.status, 401, "{path}");
    }
    // A link from elsewhere brings no strict cookie along: the page asks for itself once more.
    let linked = browser.send(Method::GET, "/generations/gen_1", &[], &[("sec-fetch-site", "cross-site")]).await;
    assert!(linked.html.contains(r#"content="0;url=/generations/gen_1""#), "{}", linked.html);
}

#[tokio::test]
async fn a_session_ends_with_its_key_its_time_and_the_logout() {
    let mut world = World::with(with_a_reader).await;
    let (one, other) = (Browser::logged_in(&world, READER).await.cookie, Browser::logged_in(&world, KEY).await.cookie);
    let status = async |world: &World, cookie: &Option<String>| {
        Browser { world, cookie: cookie.clone() }.get("/").await.status.as_u16()
    };
    assert_eq!((status(&world, &one).await, status(&world, &other).await), (200, 200));
    world.stop().await;
    world.config.api.keys[0].secret = Secret::new("the key was changed");
    world.resume().await;
    assert_eq!((status(&world, &one).await, status(&world, &other).await), (303, 200), "and outlives a restart");
    let browser = Browser { world: &world, cookie: other.clone() };
    assert_eq!(browser.post("/logout", &[]).await.location(), "/login");
    assert_eq!(status(&world, &other).await, 303, "also for a copy of the cookie");
    let third = Browser::logged_in(&world, KEY).await.cookie;
    world.clock.advance(Duration::from_hours(12));
    assert_eq!(status(&world, &third).await, 303);
    // What is kept tells neither the cookie nor the key.
    let token = third.unwrap().split('=').nth(1).unwrap().to_owned();
    let file = std::fs::read(world.folder.path().join("recoup.db")).unwrap();
    let log = std::fs::read(world.folder.path().join("recoup.db-wal")).unwrap_or_default();
    for secret in [token.as_bytes(), KEY.as_bytes()] {
        assert!(![&file, &log].iter().any(|bytes| bytes.windows(secret.len()).any(|part| part == secret)));
    }
}

#[tokio::test]
async fn another_site_can_make_the_browser_do_nothing() {
    let world = World::new().await;
    let bought = world.buy(Plan::default()).await;
    let browser = Browser::logged_in(&world, KEY).await;
    let path = format!("/generations/{}/note", bought.id);
    let before = world.timeline(&bought.id, "note").await;
    for headers in [
        &[("origin", "https://evil.example"), ("sec-fetch-site", "cross-site")][..],
        &[("origin", "https://evil.example")],
        &[("origin", "null")],
        &[("sec-fetch-site", "same-site")],
    ] {
        let refused = browser.send(Method::POST, &path, &[("text", "forged")], headers).await;
        assert_eq!(refused.status, 403, "{headers:?}");
        assert!(refused.html.contains("Nothing was done"), "{}", refused.html);
    }
    assert_eq!(world.timeline(&bought.id, "note").await, before);
    assert_eq!(browser.post(&path, &[("text", "from the page")]).await.status, 303);
    assert_eq!(world.timeline(&bought.id, "note").await.last().unwrap()["text"], "from the page");
    let page = browser.get("/").await;
    let policy = page.headers["content-security-policy"].to_str().unwrap();
    assert!(policy.contains("default-src 'none'") && !policy.contains("unsafe"), "{policy}");
    assert_eq!(page.headers["x-frame-options"], "DENY");
    assert_eq!(page.headers["cache-control"], "no-store");
}

#[tokio::test]
async fn who_may_only_look_is_offered_nothing_else() {
    let world = World::with(with_a_reader).await;
    let bought = world.buy(Plan::default()).await;
    world.webhook(&bought.callback_url, failed(&bought.provider_id, "TIMEOUT")).await.expect(200);
    let (reader, operator) = (Browser::logged_in(&world, READER).await, Browser::logged_in(&world, KEY).await);
    let path = format!("/generations/{}", bought.id);
    let (seen, offered) = (reader.page(&path).await, operator.page(&path).await);
    for action in ["/note", "/check", "/refund"] {
        assert!(!seen.contains(&format!(r#"action="{path}{action}""#)), "{action}");
        assert!(offered.contains(&format!(r#"action="{path}{action}""#)), "{action}");
        assert_eq!(reader.post(&format!("{path}{action}"), &[("text", "x")]).await.status, 403, "{action}");
    }
    assert_eq!(reader.get("/events/redeliver").await.status, 403);
    let token = world.standing_url().rsplit('/').next().unwrap().to_owned();
    assert!(!reader.page("/setup").await.contains(&token), "a standing URL is a credential");
    assert!(operator.page("/setup").await.contains(&token));
}

#[tokio::test]
async fn actions_do_what_the_api_does_and_say_so() {
    let world = World::new().await;
    let bought = world.buy(Plan::default()).await;
    let browser = Browser::logged_in(&world, KEY).await;
    let path = format!("/generations/{}", bought.id);
    let asked = browser.post(&format!("{path}/check"), &[]).await;
    assert_eq!(asked.location(), format!("{path}?done=checked"));
    assert!(browser.page(asked.location()).await.contains("The provider was asked"));
    assert_eq!(world.timeline(&bought.id, "check").await.len(), 1);
    let early = browser.post(&format!("{path}/refund"), &[]).await;
    assert_eq!(early.status, 409, "it is still being made");
    world.webhook(&bought.callback_url, failed(&bought.provider_id, "TIMEOUT")).await.expect(200);
    assert_eq!(browser.post(&format!("{path}/refund"), &[]).await.location(), format!("{path}?done=refunded"));
    assert_eq!(world.generation(&bought.id).await["credits"], "refunded");
    let delivery = text(&world.timeline(&bought.id, "delivery").await[0]["id"]);
    let replayed = browser.post(&format!("/deliveries/{delivery}/replay"), &[]).await;
    let page = browser.page(replayed.location()).await;
    assert!(page.contains("run through the intake again") && page.contains(&delivery), "{page}");
    let event = text(&world.timeline(&bought.id, "event").await[0]["id"]);
    let never_sent = browser.post(&format!("/events/{event}/redeliver"), &[]).await;
    assert_eq!(never_sent.status, 409);
    assert!(browser.page(&format!("/events/{event}")).await.contains("Nowhere"));
    for (note, status) in [("", 422), ("   ", 422), ("seen by support", 303)] {
        assert_eq!(browser.post(&format!("{path}/note"), &[("text", note)]).await.status, status, "{note:?}");
    }
    assert!(browser.page(&path).await.contains("seen by support"));
}

#[tokio::test]
async fn the_search_leads_to_the_one_that_is_meant() {
    let world = World::new().await;
    let bought = world.buy_with(Plan::default(), json!({"metadata": {"user": "4&2"}})).await;
    world.webhook(&bought.callback_url, failed(&bought.provider_id, "TIMEOUT")).await.expect(200);
    let browser = Browser::logged_in(&world, KEY).await;
    let find = async |wanted: &str| {
        let wanted: String = url::form_urlencoded::byte_serialize(wanted.as_bytes()).collect();
        browser.get(&format!("/generations?q={wanted}")).await
    };
    let path = format!("/generations/{}", bought.id);
    assert_eq!(find(&bought.id).await.location(), path);
    assert_eq!(find(&format!("  {} ", bought.provider_id)).await.location(), path);
    let (delivery, event) =
        (&world.timeline(&bought.id, "delivery").await[0], &world.timeline(&bought.id, "event").await[0]);
    assert_eq!(find(&text(&delivery["id"])).await.location(), format!("/deliveries/{}", text(&delivery["id"])));
    assert_eq!(find(&text(&event["id"])).await.location(), format!("/events/{}", text(&event["id"])));
    let labelled = find("user=4&2").await.location().to_owned();
    assert!(browser.page(&labelled).await.contains(&bought.id), "{labelled}");
    assert!(!browser.page("/generations?metadata%5Buser%5D=5").await.contains(&bought.id));
    let nothing = find("no such id").await;
    assert_eq!(nothing.status, 404);
    assert!(nothing.html.contains("There is no generation of this id"), "{}", nothing.html);
    assert_eq!(browser.get("/generations?status=unheard-of").await.status, 400);
    assert_eq!(browser.get(&format!("/generations/{}", bought.provider_id)).await.location(), path);
}

const HOSTILE: &str = "<script>alert(1)</script>\"'><img src=x onerror=alert(2)>\u{1b}[31m\u{0}\u{202e}gpj";

/// Markup that would work, and characters that would act.
fn assert_harmless(path: &str, html: &str) {
    for bad in ["<script>alert", "<img src=x", "href=\"javascript:", "src=\"javascript:", "\u{1b}", "\u{0}", "\u{202e}"]
    {
        assert!(!html.contains(bad), "{path} shows {bad:?}");
    }
}

#[tokio::test]
async fn hostile_data_is_shown_as_text_and_its_links_cannot_be_followed() {
    let world = World::new().await;
    let hostile = HOSTILE.replace('\0', "");
    let details = json!({"model": "<b>&model", "prompt": hostile, "metadata": {"<i>key": hostile}});
    let mut paths: Vec<String> = PAGES.iter().map(|path| (*path).to_owned()).collect();
    for link in ["javascript:alert(3)", "https://127.0.0.1/v.mp4", "https://u:p@cdn.example.net/v", "data:text/html,x"]
    {
        let one = world.buy_with(Plan::default(), details.clone()).await;
        world.webhook(&one.callback_url, completed(&one.provider_id, link)).await.expect(200);
        let browser = Browser::logged_in(&world, KEY).await;
        let path = format!("/generations/{}", one.id);
        let page = browser.page(&path).await;
        // What is no web address is no result at all.
        assert_eq!(page.contains("Not made a link"), link.starts_with("https:"), "{link}");
        assert!(!page.contains(&format!("href=\"{link}")) && !page.contains("<video"), "{link}");
        assert!(page.contains("&#60;script&#62;alert(1)"), "the prompt is there as text: {page}");
        paths.push(path);
    }
    let failing = world.buy_with(Plan::default(), details.clone()).await;
    world.webhook(&failing.callback_url, failed(&failing.provider_id, &hostile)).await.expect(200);
    world.webhook(&failing.callback_url, format!("{{\"{HOSTILE}")).await.expect(422);
    let note = format!("/v1/generations/{}", failing.id);
    world.patch(&note, &json!({"metadata": {"again": hostile}})).await.expect(200);
    let browser = Browser::logged_in(&world, KEY).await;
    browser.post(&format!("/generations/{}/note", failing.id), &[("text", &hostile)]).await;
    paths.push(format!("/generations/{}", failing.id));
    for kind in ["delivery", "event"] {
        for entry in world.timeline(&failing.id, kind).await {
            let folder = if kind == "delivery" { "deliveries" } else { "events" };
            paths.push(format!("/{folder}/{}", text(&entry["id"])));
        }
    }
    let query: String = url::form_urlencoded::byte_serialize(hostile.as_bytes()).collect();
    for path in ["/generations?model=", "/generations?metadata%5B%3Ci%3Ekey%5D=", "/generations?error_code="] {
        paths.push(format!("{path}{query}"));
    }
    for path in paths.iter().filter(|path| !path.starts_with("/export")) {
        assert_harmless(path, &browser.page(path).await);
    }
    for path in [format!("/generations?q={query}"), format!("/trends?span={query}"), format!("/login?next={query}")] {
        assert_harmless(&path, &browser.get(&path).await.html);
    }
}

#[tokio::test]
async fn a_result_at_the_providers_own_address_or_a_public_one_is_played() {
    let world = World::new().await;
    let browser = Browser::logged_in(&world, KEY).await;
    for link in [format!("{}/results/a.mp4", world.provider_url), "https://cdn.example.net/v.mp4?sig=1&x=2".to_owned()]
    {
        let bought = world.buy(Plan::default()).await;
        world.webhook(&bought.callback_url, completed(&bought.provider_id, &link)).await.expect(200);
        let shown = browser.get(&format!("/generations/{}", bought.id)).await;
        let escaped = link.replace('&', "&#38;");
        assert!(shown.html.contains(&format!("src=\"{escaped}\"")), "{}", shown.html);
        let origin = url::Url::parse(&link).unwrap().origin().ascii_serialization();
        let policy = shown.headers["content-security-policy"].to_str().unwrap();
        assert!(policy.contains(&format!("media-src {origin};")), "{policy}");
    }
}

#[tokio::test]
async fn an_export_holds_every_row_of_the_filter_and_no_formula() {
    let world = World::new().await;
    for n in 0..205 {
        world.register(&format!("p-{n}")).await;
    }
    let formula = json!({"generation_id": "p-x", "family": "kling/o3-video", "prompt": "=HYPERLINK(\"http://evil\")"});
    world.post("/v1/generations", &formula).await.expect(201);
    let browser = Browser::logged_in(&world, KEY).await;
    let csv = browser.get("/export/generations.csv").await.html;
    let mut rows = csv::Reader::from_reader(csv.as_bytes());
    let names = rows.headers().unwrap().clone();
    let rows: Vec<_> = rows.records().map(Result::unwrap).collect();
    assert_eq!((rows.len(), &names[0], &rows[0][7]), (206, "id", "'=HYPERLINK(\"http://evil\")"));
    let lines = browser.get("/export/generations.ndjson?order=asc&model=kling_o3").await.html;
    let ids: Vec<_> = lines
        .lines()
        .map(|line| text(&serde_json::from_str::<serde_json::Value>(line).unwrap()["generation_id"]))
        .collect();
    assert_eq!((ids.len(), ids[0].as_str(), ids[204].as_str()), (205, "p-0", "p-204"));
    assert_eq!(browser.get("/export/passwords.csv").await.status, 404);
    assert_eq!(browser.get("/export/generations.csv?status=nonsense").await.status, 400);
}

#[tokio::test]
async fn what_is_at_risk_and_what_was_bought_twice_is_told() {
    let world = World::new().await;
    let browser = Browser::logged_in(&world, KEY).await;
    assert!(browser.page("/").await.contains("Everything that was paid for is delivered"));
    let stuck = world.register("nobody-knows-this").await;
    world.advance_s(60 * 60).await;
    let now = browser.page("/").await;
    assert!(now.contains("$0.15") && now.contains("/generations?credits=at_risk&amp;attention="), "{now}");
    assert!(now.contains(&stuck));
    let same = json!({"prompt": "a paper boat", "price": "0.1500"});
    let (one, two) = (world.buy_with(Plan::default(), same.clone()).await, world.buy_with(Plan::default(), same).await);
    let page = browser.page(&format!("/generations/{}", one.id)).await;
    assert!(page.contains("was bought once more within ten minutes") && page.contains(&two.id), "{page}");
    let other = browser.page(&format!("/generations/{stuck}")).await;
    assert!(other.contains("Its prompt is not on record"), "{other}");
}

#[tokio::test]
async fn the_charts_count_every_outcome_once_where_it_was_learned() {
    let world = World::new().await;
    let browser = Browser::logged_in(&world, KEY).await;
    // The provider itself tells nothing that could contradict, however much time goes by.
    let silent = || Plan { fate: Fate::NeverEnds, ..Plan::default() };
    let one = world.buy(silent()).await;
    world.webhook(&one.callback_url, completed(&one.provider_id, "https://cdn.example.net/1.mp4")).await.expect(200);
    world.webhook(&one.callback_url, completed(&one.provider_id, "https://cdn.example.net/1.mp4")).await.expect(200);
    let two = world.buy(silent()).await;
    world.webhook(&two.callback_url, failed(&two.provider_id, "TIMEOUT")).await.expect(200);
    let page = browser.page("/trends").await;
    let told = "2026-11-23 10:00: completed, told by a webhook: 1, failed: 1";
    assert!(page.contains(told), "{page}");
    assert!(page.contains("2026-11-23 10:00: taken over: 2, repeats: 1"), "{page}");
    assert!(page.contains("0 of 2 outcomes had to be found by asking"), "{page}");
    assert!(page.contains("2026-11-23 10:00: told by a webhook: 2"), "{page}");
    assert!(!page.contains("no code was given"), "{page}");
    let three = world.buy(silent()).await;
    let unexplained = json!({"generation_id": three.provider_id, "status": "failed", "message": null});
    world.webhook(&three.callback_url, unexplained.to_string()).await.expect(200);
    let page = browser.page("/trends").await;
    assert!(page.contains("error_code=TIMEOUT") && page.contains("no code was given"), "{page}");
    world.clock.advance(Duration::from_hours(24 * 89));
    assert!(!browser.get("/trends").await.html.contains(told));
    let browser = Browser::logged_in(&world, KEY).await;
    assert!(browser.page("/trends?span=90d").await.contains("2026-11-23: completed, told by a webhook: 1, failed: 2"));
}

#[tokio::test]
async fn the_set_up_tells_of_the_last_backup() {
    let world = World::new().await;
    let browser = Browser::logged_in(&world, KEY).await;
    assert!(browser.page("/setup").await.contains("none by <code>recoup backup FILE</code> yet"));
    let copy = world.folder.path().join("copy.db");
    recoup::store::backup(&world.config.database.url, &copy, world.clock.now()).await.unwrap();
    world.clock.advance(Duration::from_hours(3));
    let page = browser.page("/setup").await;
    assert!(page.contains("3 h ago</time>, ") && page.contains("kB"), "{page}");
}
