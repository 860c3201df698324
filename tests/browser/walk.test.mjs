// Every page and action of a running demo, in a real browser: no console error, no failed request, nothing from elsewhere, no
// accessibility violation, in light, dark, narrow and without JavaScript.
import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { readFileSync } from "node:fs";
import { createRequire } from "node:module";
import path from "node:path";
import { after, before, test } from "node:test";
import { fileURLToPath } from "node:url";
import { chromium } from "playwright-core";

const root = path.resolve(path.dirname(fileURLToPath(import.meta.url)), "../..");
const axe = readFileSync(createRequire(import.meta.url).resolve("axe-core/axe.min.js"), "utf8");
const target = process.env.CARGO_TARGET_DIR ?? path.join(root, "target");
const KEY = "demo-key-for-loopback-only";
const HOSTILE = "<script>document.title='owned'</script><img src=x onerror=alert(1)>\u202e\u001b[31m";
const MODES = {
  light: { colorScheme: "light", viewport: { width: 1280, height: 900 } },
  dark: { colorScheme: "dark", viewport: { width: 1280, height: 900 } },
  narrow: { colorScheme: "light", viewport: { width: 360, height: 740 }, isMobile: true, hasTouch: true },
  "no script": { colorScheme: "light", viewport: { width: 1280, height: 900 }, javaScriptEnabled: false },
};

let demo, base, browser;
const known = {};

const api = async (method, route, body) => {
  const headers = { authorization: `Bearer ${KEY}`, "content-type": "application/json" };
  const answer = await fetch(base + route, { method, headers, body: body && JSON.stringify(body) });
  return answer.json();
};
const bought = (extra) => api("POST", "/v1/generations", { family: "kling/o3-video", model: "kling_o3", duration_seconds: 5, ...extra });
const one = async (filter) => (await api("GET", `/v1/generations?limit=1&${filter}`)).data[0];

before(async () => {
  demo = spawn(process.env.RECOUP_BINARY ?? path.join(target, "debug", "recoup"), ["demo", "--generations", "20"], { stdio: ["ignore", "pipe", "inherit"] });
  base = await new Promise((found, failed) => {
    let told = "";
    demo.stdout.on("data", (part) => {
      told += part;
      const page = told.match(/The page: +(http:\S+)/);
      if (page) found(page[1]);
    });
    demo.on("exit", (code) => failed(new Error(`the demo ended with ${code}: ${told}`)));
  });
  browser = await chromium.launch({
    executablePath: "/usr/bin/chromium",
    args: ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
      "--disable-component-update", "--disable-sync"],
  });
  // What the demo does not bring by itself: hostile words, a contradiction, an unreadable body.
  const hostile = await bought({ prompt: HOSTILE, metadata: { customer: HOSTILE } });
  await fetch(hostile.callback_url, { method: "POST", body: JSON.stringify({ generation_id: "h-1", status: "completed", video_url: "javascript:alert(1)" }) });
  await fetch(hostile.callback_url, { method: "POST", body: JSON.stringify({ generation_id: "h-1", status: "failed", message: HOSTILE }) });
  await fetch(hostile.callback_url, { method: "POST", body: "{ not json" });
  known.hostile = hostile.id;
  await bought({ generation_id: "nobody-knows-this-one", price: "0.1500" });
  known.failed = (await one("status=failed")).id;
  known.completed = (await one("status=completed&source=check")).id;
  known.delivery = (await api("GET", "/v1/deliveries?limit=1")).data[0].id;
  known.unreadable = (await api("GET", "/v1/deliveries?limit=1&disposition=unreadable")).data[0].id;
  known.event = (await api("GET", "/v1/events?limit=1")).data[0].id;
});

after(async () => {
  await browser?.close();
  demo?.removeAllListeners("exit");
  demo?.kill("SIGINT");
});

/** A page whose every complaint is kept. */
async function open(mode) {
  const context = await browser.newContext(mode);
  const page = await context.newPage();
  const faults = [];
  page.on("console", (said) => { if (["error", "warning"].includes(said.type())) faults.push(`console: ${said.text()}`); });
  page.on("pageerror", (error) => faults.push(`script: ${error}`));
  page.on("requestfailed", (request) => {
    // What is under way ends when its page is left.
    if (request.failure()?.errorText !== "net::ERR_ABORTED") faults.push(`failed: ${request.url()} ${request.failure()?.errorText}`);
  });
  page.on("request", (request) => {
    if (new URL(request.url()).hostname !== "127.0.0.1") faults.push(`left the house: ${request.url()}`);
  });
  page.on("response", (answer) => { if (answer.status() >= 400) faults.push(`${answer.status()}: ${answer.url()}`); });
  return { page, faults, close: () => context.close() };
}

/** What a person sees first, for the documents and for our own eyes. */
const picture = (page, name) => process.env.RECOUP_SCREENSHOTS && page.screenshot({ path: path.join(process.env.RECOUP_SCREENSHOTS, `${name}.png`) });

async function logIn(page) {
  await page.goto(`${base}/`);
  assert.equal(new URL(page.url()).pathname, "/login");
  await page.fill("#key", KEY);
  await page.click("button.primary");
  assert.equal(new URL(page.url()).pathname, "/");
}

const pages = () => ({
  now: "/", trends: "/trends", "trends-90d": "/trends?span=90d", generations: "/generations", failed: "/generations?status=failed&credits=refunded",
  nothing: "/generations?model=none", generation: `/generations/${known.completed}`, "generation-failed": `/generations/${known.failed}`,
  "generation-hostile": `/generations/${known.hostile}`, deliveries: "/deliveries", unreadable: "/deliveries?disposition=unreadable",
  delivery: `/deliveries/${known.delivery}`, "delivery-unreadable": `/deliveries/${known.unreadable}`, events: "/events", dead: "/events?state=dead",
  event: `/events/${known.event}`, redeliver: "/events/redeliver?type=generation.failed", catalogue: "/catalogue", setup: "/setup",
});

for (const [name, mode] of Object.entries(MODES)) {
  test(`every page, ${name}`, async () => {
    const { page, faults, close } = await open(mode);
    await logIn(page);
    for (const [title, address] of Object.entries(pages())) {
      await page.goto(base + address);
      if (process.env.RECOUP_SCREENSHOTS) {
        const file = `${title}-${name.replace(" ", "-")}.png`;
        await page.screenshot({ path: path.join(process.env.RECOUP_SCREENSHOTS, file), fullPage: true });
      }
      assert.match(await page.locator("h1").textContent(), /\S/, title);
      if (mode.javaScriptEnabled === false) continue;
      await page.evaluate(axe);
      const { violations } = await page.evaluate(() => globalThis.axe.run(document, { runOnly: ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"] }));
      assert.deepEqual(violations.map((fault) => `${fault.id}: ${fault.nodes.map((node) => node.html).slice(0, 3).join(" | ")}`), [], title);
      assert.equal(await page.title().then((it) => it.includes("owned")), false, title);
      const { wide, room } = await page.evaluate(() => ({ wide: document.scrollingElement.scrollWidth, room: innerWidth }));
      assert.ok(wide <= room, `${title} is ${wide} wide in ${room}`);
    }
    assert.deepEqual(faults, []);
    await close();
  });
}

test("every action, and what follows from it is seen", async () => {
  const { page, faults, close } = await open(MODES.light);
  await logIn(page);
  await page.goto(`${base}/generations/${known.failed}`);
  await page.click("text=Ask the provider now");
  await page.waitForSelector(".done:has-text('The provider was asked')");
  assert.ok(await page.locator(".timeline .step-check").count() >= 1);
  await page.click("button:has-text('The credits came back')");
  await page.waitForSelector(".done:has-text('the credits came back')");
  assert.equal(await page.locator("button:has-text('The credits came back')").count(), 0, "offered once");
  await page.fill("#text", "seen by support");
  await page.click("button:has-text('Add')");
  await page.waitForSelector(".timeline .step-note:has-text('seen by support')");
  for (const kind of ["Markdown", "JSON"]) {
    const [download] = await Promise.all([page.waitForEvent("download"), page.click(`a.button:has-text('${kind}')`)]);
    assert.ok(readFileSync(await download.path(), "utf8").includes(known.failed), kind);
  }
  await page.goto(`${base}/deliveries/${known.unreadable}`);
  await page.click("text=Run it through the intake again");
  await page.waitForSelector(".done:has-text('run through the intake again')");
  await page.goto(`${base}/generations`);
  const [csv] = await Promise.all([page.waitForEvent("download"), page.click("text=CSV")]);
  assert.ok(readFileSync(await csv.path(), "utf8").split("\n").length > 20);
  await page.goto(`${base}/events`);
  await page.click("text=Send all of this filter again");
  assert.match(await page.locator("main").textContent(), /None of this filter can be sent again/, "the demo has no endpoint");
  await page.click("text=Log out");
  await page.waitForURL(`${base}/login`);
  await page.goto(`${base}/generations`);
  assert.equal(new URL(page.url()).pathname, "/login");
  assert.deepEqual(faults, []);
  await close();
});

test("the film plays, and a link that leads inside is text", async () => {
  const { page, faults, close } = await open(MODES.light);
  await logIn(page);
  await page.goto(`${base}/generations/${known.completed}`);
  const seconds = await page.locator("video").evaluate(async (video) => {
    if (video.readyState < 1) await new Promise((ready, failed) => { video.onloadedmetadata = ready; video.onerror = failed; });
    return video.duration;
  });
  assert.ok(seconds > 3, `${seconds} s`);
  await page.locator("video").evaluate((video) => new Promise((shown) => { video.onseeked = shown; video.currentTime = video.duration / 2; }));
  await picture(page, "tour-recovered");
  await page.goto(`${base}/generations/${known.hostile}`);
  assert.equal(await page.locator("a[href^='javascript']").count(), 0);
  assert.match(await page.locator("main").textContent(), /<script>document.title='owned'<\/script>/);
  assert.deepEqual(faults, []);
  await close();
});

test("three questions are answered within three clicks", async () => {
  const { page, close } = await open(MODES.light);
  const clicks = async (...steps) => {
    assert.ok(steps.length <= 3);
    await page.goto(`${base}/`);
    for (const step of steps) { await page.locator(step).first().click(); await page.waitForLoadState(); }
    return page.locator("main").textContent();
  };
  await logIn(page);
  // Past its hard limit a quarter of a minute after it was bought, at the demo's pace.
  await page.waitForSelector(".risk:not(.calm)", { timeout: 120_000 });
  await picture(page, "tour-now");
  assert.match(await clicks(".risk li a", ".list tbody th a"), /Where is the money\?.*it is at risk/s);
  await picture(page, "tour-at-risk");
  assert.match(await clicks("nav >> text=Over time", ".figures th a", ".list tbody th a"), /Why did it fail\?/);
  assert.match(await clicks("nav >> text=Generations", ".list tbody th a"), /Was it charged twice\?/);
  await close();
});

test("a page follows what happens, and can be used by keyboard alone", async () => {
  const { page, faults, close } = await open(MODES.light);
  await logIn(page);
  await page.goto(`${base}/generations`);
  const { id } = await bought({ generation_id: `live-${Date.now()}` });
  await page.waitForSelector(`a[href="/generations/${id}"]`);
  await page.goto(`${base}/catalogue`);
  await page.keyboard.press("Tab");
  assert.equal(await page.evaluate(() => document.activeElement.textContent), "Skip to the content");
  await page.keyboard.press("Enter");
  assert.equal(await page.evaluate(() => document.activeElement.id), "main");
  await page.goto(`${base}/setup`);
  const seen = new Set();
  for (let n = 0; n < 60; n++) {
    await page.keyboard.press("Tab");
    seen.add(await page.evaluate(() => document.activeElement.textContent.trim()));
  }
  for (const name of ["Over time", "Generations", "Log out", "The standing URLs"]) assert.ok(seen.has(name), `${name} is reached by Tab`);
  assert.deepEqual(faults, []);
  await close();
});
