#!/usr/bin/env python3
"""How recoup does with very many generations in its file: bytes for each, start, ingest, queries while webhooks arrive.

    benches/big.py target/release/recoup [--rows 10000000] [--seconds 5] [--keep FOLDER] [--into docs/PERFORMANCE.md]

Fills a database through SQL (settled generations, each with its delivery, its event and its place in the sums; some failed, some
labelled, a few open), then starts the binary on it. Needs wrk (apt-get install wrk). With --keep the filled file stays there and is
used again: about 6 GB for ten million.
"""
import argparse, json, os, re, shutil, sqlite3, subprocess, sys, tempfile, time, urllib.error, urllib.request

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from common import KEY, LUA, callback_path, environment, free_port, memory_mb, publish, stop, wrk

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("binary")
parser.add_argument("--rows", type=int, default=10_000_000)
parser.add_argument("--seconds", type=int, default=5)
parser.add_argument("--keep")
parser.add_argument("--into")
options = parser.parse_args()
BINARY = os.path.abspath(options.binary)
ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
DAY_MS = 86_400_000

SERIES = "WITH RECURSIVE series(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM series WHERE n < :rows)"
# One in twenty failed, one in ten thousand is open; a tenth carries a label; ninety days of purchases in their order.
FILL = [
    f"""INSERT INTO generations (id, uid, provider_id, family, status, model, duration_seconds, result_url, error_code, error_text,
            price_micros, source, verification, recovered, via, created_at, settled_at, check_at, checks, running_streak,
            not_found_streak, error_streak, late_answers, deliveries, webhook_at, outcomes, events, metadata)
        {SERIES}
        SELECT n, CAST(printf('%016d', n) AS BLOB), randomblob(16), 1, s, iif(n % 3, 'kling_o3', 'kling_o3_pro'), 5,
               iif(s = 7, 'https://cdn.example/videos/' || hex(randomblob(12)) || '.mp4', NULL),
               iif(s = 8, iif(n % 40, 'NSFW_CONTENT_DETECTED', 'GENERATION_TIMEOUT'), NULL), NULL,
               84000, iif(s > 6, 1, NULL), iif(s > 6, 1, NULL), 0, 2, t, iif(s > 6, t + 150000, NULL),
               iif(s > 6, NULL, :now + 86400000 + n), 0, 0, 0, 0, 0, s > 6, iif(s > 6, t + 150000, NULL), s > 6, s > 6,
               iif(n % 10, NULL, '{{"order":"' || n || '"}}')
        FROM (SELECT n, iif(n % 10000 = 0, 6, iif(n % 20, 7, 8)) AS s, :now - :days * {DAY_MS} + n * :days * {DAY_MS} / :rows AS t
              FROM series)""",
    f"""INSERT INTO deliveries (id, uid, generation, family, standing, received_at, disposition, body_bytes, body_sha256)
        {SERIES} SELECT n, CAST(printf('%016d', n) AS BLOB), n, 1, 0, :now - :days * {DAY_MS} + n * :days * {DAY_MS} / :rows + 150000,
                        1, 230, randomblob(32) FROM series WHERE n % 10000""",
    f"""INSERT INTO events (id, uid, generation, sequence, at, kind, for_caller)
        {SERIES} SELECT n, CAST(printf('%016d', n) AS BLOB), n, 1, :now - :days * {DAY_MS} + n * :days * {DAY_MS} / :rows + 150000,
                        iif(n % 20, 1, 2), 0 FROM series WHERE n % 10000""",
    f"""INSERT INTO labels SELECT 'order', id, created_at, id FROM generations WHERE metadata IS NOT NULL""",
    """INSERT INTO credit_hours
       SELECT coalesce(submitted_at, created_at) / 3600000, status, coalesce(attention, 0), coalesce(error_code, ''),
              coalesce(model, ''), recovered, refunded_at IS NOT NULL, count(*), count(price_micros), coalesce(sum(price_micros), 0)
       FROM generations GROUP BY 1, 2, 3, 4, 5, 6, 7""",
    """INSERT INTO credit_days
       SELECT hour / 24, status, attention, error_code, model, recovered, refunded, sum(generations), sum(priced), sum(micros)
       FROM credit_hours GROUP BY 1, 2, 3, 4, 5, 6, 7""",
    # As migration 7 does.
    """INSERT INTO outcome_hours
       SELECT settled_at / 3600000, family, coalesce(model, ''), status, coalesce(source, 0), recovered, count(*),
              count(*) FILTER (WHERE settled_at <= expected_by), sum(max(0, settled_at - coalesce(submitted_at, created_at)))
       FROM generations WHERE settled_at IS NOT NULL GROUP BY 1, 2, 3, 4, 5, 6""",
    """INSERT INTO webhook_hours
       SELECT received_at / 3600000, family, disposition, count(*), 0, 0 FROM deliveries GROUP BY 1, 2, 3""",
]
BODIES = f"""INSERT INTO bodies (delivery, body) {SERIES}
    SELECT n, CAST('{{"generation_id":"' || hex(randomblob(16)) || '----","status":"completed","video_url":"https://cdn.example/videos/'
           || hex(randomblob(12)) || '.mp4","model":"kling_o3","message":null,"created_at":"2026-11-24T10:00:00Z","cost":0.084}}' AS BLOB)
    FROM series WHERE n % 10000"""


def size(file):
    return sum(os.path.getsize(file + end) for end in ("", "-wal") if os.path.exists(file + end))


def start(folder, port):
    """The process, how long until a webhook was answered durably, and where webhooks go."""
    path = callback_path(BINARY, folder, port)
    body = json.dumps({"generation_id": f"first-{time.time_ns()}", "status": "completed", "video_url": "https://cdn.example/first.mp4"})
    began = time.monotonic()
    process = subprocess.Popen([BINARY, "serve"], cwd=folder, env=environment(port))
    while True:
        try:
            request = urllib.request.Request(f"http://127.0.0.1:{port}{path}", data=body.encode(), headers={"content-type": "application/json"})
            urllib.request.urlopen(request, timeout=30).read()
            return process, (time.monotonic() - began) * 1e3, path
        except OSError:
            time.sleep(0.0005)


def fill(file):
    db = sqlite3.connect(file, isolation_level=None)
    for pragma in ("journal_mode = OFF", "synchronous = OFF", "foreign_keys = OFF", "cache_size = -2000000", "temp_store = MEMORY"):
        db.execute(f"PRAGMA {pragma}")
    for table in ("labels", "bodies", "events", "deliveries", "generations", "credit_hours", "credit_days", "outcome_hours",
                  "webhook_hours", "paces", "trusts"):
        db.execute(f"DELETE FROM {table}")
    tables = ("generations", "deliveries", "events", "labels")
    indexes = db.execute(f"SELECT name, sql FROM sqlite_schema WHERE type = 'index' AND sql IS NOT NULL AND tbl_name IN {tables}").fetchall()
    for name, _ in indexes:
        db.execute(f"DROP INDEX {name}")
    values = {"rows": options.rows, "now": int(time.time() * 1e3), "days": 90}
    db.execute("BEGIN")
    for statement in FILL:
        began = time.monotonic()
        db.execute(statement, values)
        print(f"  {statement.split()[2]} {time.monotonic() - began:.0f} s", flush=True)
    for _, sql in indexes:
        db.execute(sql)
    db.execute("COMMIT")
    db.execute("PRAGMA journal_mode = WAL")
    db.close()


def with_bodies(file):
    """Bytes that the raw bodies add, measured on a tenth of the rows and taken out again."""
    db = sqlite3.connect(file, isolation_level=None)
    pages = lambda: db.execute("PRAGMA page_count").fetchone()[0] - db.execute("PRAGMA freelist_count").fetchone()[0]
    before, rows = pages(), options.rows // 10
    db.execute("BEGIN")
    db.execute(BODIES, {"rows": rows})
    added = (pages() - before) * 4096 / rows
    db.execute("ROLLBACK")
    db.close()
    return added


def query_lua(paths, header):
    lines = ", ".join(f'"{path}"' for path in paths)
    return f"""
local paths = {{ {lines} }}
local place = 0
function request() place = place % #paths + 1; return wrk.format("GET", paths[place], {{{header}}}) end
"""


def write_lua(folder, kinds, header):
    files = {}
    for kind, paths in kinds.items():
        files[kind] = os.path.join(folder, re.sub(r"\W+", "-", kind) + ".lua")
        with open(files[kind], "w") as script:
            script.write(query_lua(paths, header))
    return files


def some_rows(file):
    db = sqlite3.connect(f"file:{file}?mode=ro", uri=True)
    step = max(1, options.rows // 2000)
    return db.execute("SELECT uid, provider_id, created_at FROM generations WHERE id % ? = 1 LIMIT 2000", (step,)).fetchall()


def time_text(ms):
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(ms / 1e3))


def queries(folder, file):
    """Lua for each kind of query: many different ones, the answers of which no cache holds."""
    some = some_rows(file)
    text = lambda blob: f"{blob[:4].hex()}-{blob[4:6].hex()}-{blob[6:8].hex()}-{blob[8:10].hex()}-{blob[10:].hex()}"
    kinds = {
        "one by our id": [f"/v1/generations/gen_{uid.hex()}" for uid, _, _ in some],
        "one by the provider's id": [f"/v1/generations/{text(provider)}" for _, provider, _ in some if isinstance(provider, bytes)],
        "list, newest": ["/v1/generations"],
        "list, failed": [f"/v1/generations?status=failed&created_before={time_text(at)}" for _, _, at in some],
        "list, an error code": [f"/v1/generations?error_code=GENERATION_TIMEOUT&created_before={time_text(at)}" for _, _, at in some],
        "list, a model and completed": [f"/v1/generations?status=completed&model=kling_o3_pro&created_before={time_text(at)}" for _, _, at in some],
        "list, a model nobody has": ["/v1/generations?model=unheard_of"],
        "list, a label": [f"/v1/generations?metadata%5Border%5D={n * 10}" for n in range(1, 2000)],
        "list, credits at risk": ["/v1/generations?credits=at_risk"],
        "list, refunded and old": [f"/v1/generations?credits=refunded&created_before={time_text(at)}" for _, _, at in some],
        "timeline": [f"/v1/generations/gen_{uid.hex()}/timeline" for uid, _, _ in some],
        "events, failed": ["/v1/events?type=generation.failed"],
        "deliveries": ["/v1/deliveries"],
        "credits, everything": ["/v1/credits"],
        "credits, any range": [f"/v1/credits?since={time_text(at)}&until={time_text(at + 30 * DAY_MS + 1234567)}" for _, _, at in some],
        "what needs attention": ["/v1/generations?attention=any"],
        "stats": ["/v1/stats"],
        "a scrape": ["/metrics"],
    }
    return write_lua(folder, kinds, f'["authorization"] = "Bearer {KEY}"')


def pages(folder, file, port):
    """The same for the operator's page, as somebody sees it who has logged in."""
    class Stay(urllib.request.HTTPRedirectHandler):
        def redirect_request(self, *_):
            return None

    login = urllib.request.Request(f"http://127.0.0.1:{port}/login", data=f"key={KEY}".encode(), headers={"origin": f"http://127.0.0.1:{port}"})
    try:
        urllib.request.build_opener(Stay).open(login, timeout=30)
        raise SystemExit("the page let nobody in")
    except urllib.error.HTTPError as entered:
        cookie = entered.headers["set-cookie"].split(";")[0]
    some = some_rows(file)
    db = sqlite3.connect(f"file:{file}?mode=ro", uri=True)
    delivery, event = (db.execute(f"SELECT uid FROM {table} ORDER BY id DESC LIMIT 1").fetchone()[0].hex() for table in ("deliveries", "events"))
    kinds = {
        "now": ["/"],
        "over time, 24 hours": ["/trends"],
        "over time, 90 days": ["/trends?span=90d"],
        "generations": ["/generations"],
        "generations, failed": [f"/generations?status=failed&created_before={time_text(at)}" for _, _, at in some],
        "generations, a model nobody has": ["/generations?model=unheard_of"],
        "generations, a label": [f"/generations?metadata%5Border%5D={n * 10}" for n in range(1, 2000)],
        "one generation": [f"/generations/gen_{uid.hex()}" for uid, _, _ in some],
        "deliveries": ["/deliveries"],
        "deliveries, unreadable": ["/deliveries?disposition=unreadable"],
        "one delivery": [f"/deliveries/dlv_{delivery}"],
        "events": ["/events"],
        "events, given up": ["/events?state=dead"],
        "one event": [f"/events/evt_{event}"],
        "bulk redelivery, its count": ["/events/redeliver?type=generation.failed"],
        "catalogue": ["/catalogue"],
        "set-up": ["/setup"],
    }
    return write_lua(folder, kinds, f'["cookie"] = "{cookie}"')


def while_webhooks_arrive(port, path, slowly, script, nth):
    load = subprocess.Popen(["wrk", "-t", "1", "-c", "64", "-d", f"{options.seconds + 2}s", "-s", slowly, f"http://127.0.0.1:{port}{path}",
                             "--", str(100 + nth)], stdout=subprocess.PIPE, text=True)
    time.sleep(1)
    rate, p50, p99, _ = wrk(port, "/", 1, options.seconds, script, 0)
    return float(re.search(r"Requests/sec:\s+(\S+)", load.communicate()[0]).group(1)), rate, p50, p99


folder = options.keep or tempfile.mkdtemp(dir=os.path.join(ROOT, "target"))
os.makedirs(folder, exist_ok=True)
file = os.path.join(folder, "recoup.db")
report = ["| | |", "|---|---|"]
say = lambda what, measured: report.append(f"| {what} | {measured} |")
try:
    if not os.path.exists(file):
        process, first_ms, _ = start(folder, free_port())
        stop(process)
        say("an empty file: first durable answer", f"after {first_ms:.0f} ms")
        fill(file)
    say("generations in the file", f"{options.rows:,}")
    say("one settled, with its delivery and event, the raw body pruned", f"{size(file) / options.rows:.0f} bytes")
    say("what the raw body adds", f"{with_bodies(file):.0f} bytes")
    port = free_port()
    process, first_ms, path = start(folder, port)
    webhooks, slowly = (os.path.join(folder, name) for name in ("webhooks.lua", "slowly.lua"))
    with open(webhooks, "w") as fast, open(slowly, "w") as slow:
        fast.write(LUA)
        slow.write(LUA + "function delay() return 15 end\n")
    try:
        say("first durable answer", f"after {first_ms:.0f} ms")
        say("resident then", f"{memory_mb(process, 'VmRSS'):.0f} MB")
        wrk(port, path, 64, 2, webhooks, 1)
        rate, p50, p99, _ = wrk(port, path, 64, options.seconds, webhooks, 2)
        say("webhooks at 64 connections", f"{rate:,.0f} a second, p50 {p50:.2f} ms, p99 {p99:.2f} ms")
        report += ["", "| while webhooks arrive | webhooks a second | answers a second | p50 ms | p99 ms |", "|---|---|---|---|---|"]
        for nth, (kind, script) in enumerate(queries(folder, file).items()):
            arrived, rate, p50, p99 = while_webhooks_arrive(port, path, slowly, script, nth)
            report.append(f"| {kind} | {arrived:,.0f} | {rate:,.0f} | {p50:.2f} | {p99:.2f} |")
        report += ["", "| the page, while webhooks arrive | webhooks a second | pages a second | p50 ms | p99 ms |", "|---|---|---|---|---|"]
        for nth, (kind, script) in enumerate(pages(folder, file, port).items()):
            arrived, rate, p50, p99 = while_webhooks_arrive(port, path, slowly, script, 50 + nth)
            report.append(f"| {kind} | {arrived:,.0f} | {rate:,.0f} | {p50:.1f} | {p99:.1f} |")
        peak, log = memory_mb(process, "VmHWM"), os.path.getsize(file + "-wal") / 2**20
    finally:
        began = time.monotonic()
        stop(process)
    report += ["", f"Peak memory {peak:.0f} MB, log file {log:.0f} MB, stopped within {(time.monotonic() - began) * 1e3:.0f} ms."]
    publish(f"big {options.rows}", "\n".join(report), options.into)
finally:
    if not options.keep:
        shutil.rmtree(folder)
