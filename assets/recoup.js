// Keeps the page fresh: told that something changed, it asks for itself again and puts the parts marked data-live in place of the old
// ones. Without it the page is read as it was written; nothing here is needed to use it.
"use strict";

const live = () => document.querySelectorAll("[data-live]");
const freshness = document.getElementById("freshness");
const tell = (text) => { if (freshness) freshness.textContent = text; };

// Times go by even when nothing happens.
const TICK_MS = 10_000;
let asking = false;
let again = false;

// Somebody is reading figures, watching, or about to press something: what they look at is not pulled away.
function busy(part) {
  const held = part.querySelector("details[open], video") || document.getSelection()?.toString();
  return Boolean(held) || (part.contains(document.activeElement) && document.activeElement !== document.body);
}

async function refresh() {
  if (asking) { again = true; return; }
  asking = true;
  try {
    const answer = await fetch(location.href, { headers: { accept: "text/html" }, credentials: "same-origin" });
    if (answer.redirected && new URL(answer.url).pathname === "/login") { location.reload(); return; }
    if (!answer.ok) throw new Error(String(answer.status));
    const fresh = new DOMParser().parseFromString(await answer.text(), "text/html");
    for (const part of live()) {
      const now = fresh.getElementById(part.id);
      if (now && !busy(part) && now.innerHTML !== part.innerHTML) part.replaceChildren(...now.childNodes);
    }
    tell("· live");
  } catch {
    tell("· not reachable just now");
  } finally {
    asking = false;
    if (again) { again = false; setTimeout(refresh, 500); }
  }
}

if (live().length > 0) {
  const stream = new EventSource("/live");
  stream.addEventListener("change", refresh);
  stream.addEventListener("open", () => tell("· live"));
  stream.addEventListener("error", () => tell("· not live just now"));
  setInterval(() => { if (!document.hidden) refresh(); }, TICK_MS);
  document.addEventListener("visibilitychange", () => { if (!document.hidden) refresh(); });
}
