#!/usr/bin/env python3
"""How long GET /v1/credits takes over many generations, beside the same sums grouped out of the rows themselves.

    benches/money_report.py target/release/recoup [GENERATIONS]

Fills a database of its own through the service's schema (triggers included), asks the running service, prints both times.
"""
import json, os, random, signal, socket, sqlite3, subprocess, sys, tempfile, time, urllib.request

binary, count = os.path.abspath(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else 1_000_000
folder = tempfile.TemporaryDirectory()
with socket.socket() as free:
    free.bind(("127.0.0.1", 0))
    port = free.getsockname()[1]
KEY = "a key of the benchmark"
database = os.path.join(folder.name, "recoup.db")
environment = {
    "RECOUP_PROVIDER__API_KEY": "none", "RECOUP_PROVIDER__BASE_URL": "http://127.0.0.1:1", "RECOUP_API__KEY": KEY,
    "RECOUP_RECONCILE__ENABLED": "false", "RECOUP_WEBHOOK__SECRETS": "a secret of the benchmark", "RECOUP_LOG__LEVEL": "error",
    "RECOUP_SERVER__LISTEN": f"127.0.0.1:{port}", "RECOUP_DATABASE__URL": f"sqlite://{database}",
}


class Service:
    def __enter__(self):
        self.process = subprocess.Popen([binary, "serve"], env=environment, cwd=folder.name)
        while True:
            try:
                return urllib.request.urlopen(f"http://127.0.0.1:{port}/livez")
            except OSError:
                time.sleep(0.05)

    def __exit__(self, *_):
        self.process.send_signal(signal.SIGTERM)
        assert self.process.wait() == 0


def rows(columns):
    chance, start, span = random.Random(1), 1_787_000_000_000, 90 * 86_400_000
    for n in range(count):
        at, draw = start + n * span // count, chance.random()
        status = "completed" if draw < 0.85 else "failed" if draw < 0.98 else "rejected"
        row = dict.fromkeys(columns) | {
            "uid": at.to_bytes(6, "big") + n.to_bytes(10, "big"), "family": "kling/o3-video", "status": status,
            "recovered": int(draw < 0.1), "via": "gateway", "created_at": at, "submitted_at": at, "settled_at": at + 200_000,
            "model": chance.choice(["kling_o3", "kling_o3_pro"]), "metadata": "{}",
            "price_micros": chance.choice([150_000, 300_000, 450_000, None]),
        } | dict.fromkeys(("checks", "running_streak", "not_found_streak", "error_streak", "deliveries", "outcomes", "events"), 0)
        if status != "rejected":
            row |= {"provider_id": f"p-{n}", "source": "webhook", "verification": "token"}
        if status == "completed":
            row["result_url"] = f"https://cdn.example.net/{n}.mp4"
        else:
            row["error_code"] = chance.choice(["TIMEOUT", "CONTENT_POLICY_VIOLATION", "INVALID_IMAGE"])
        yield tuple(row.values())


with Service():
    pass
connection = sqlite3.connect(database)
connection.execute("PRAGMA synchronous=OFF")
columns = [column[1] for column in connection.execute("PRAGMA table_info(generations)") if column[1] != "id"]
sql = f"INSERT INTO generations ({', '.join(columns)}) VALUES ({', '.join('?' * len(columns))})"
connection.executemany(sql, rows(columns))
connection.commit()


def timed(work):
    times = []
    for _ in range(5):
        start = time.perf_counter()
        result = work()
        times.append(time.perf_counter() - start)
    return sorted(times)[2] * 1_000, result


grouped, _ = timed(lambda: connection.execute(
    "SELECT status, attention, error_code, model, recovered, refunded_at IS NOT NULL, count(*), sum(price_micros)"
    " FROM generations GROUP BY 1, 2, 3, 4, 5, 6").fetchall())
print(f"{count} generations, {connection.execute('SELECT count(*) FROM credit_hours').fetchone()[0]} sums kept")
print(f"grouped out of the rows       {grouped:9.1f} ms")
with Service():
    for name, query in [("everything", ""), ("since a time of day", "?since=2026-09-30T00:17:00Z"),
                        ("one day and a bit", "?since=2026-10-01T00:17:00Z&until=2026-10-02T13:37:00Z")]:
        request = urllib.request.Request(f"http://127.0.0.1:{port}/v1/credits{query}", headers={"Authorization": f"Bearer {KEY}"})
        report, answer = timed(lambda: json.load(urllib.request.urlopen(request)))
        print(f"GET /v1/credits, {name:20} {report:5.1f} ms  {answer['total']}")
connection.close()
