#!/usr/bin/env python3
"""How soon the service is ready, and how much memory it holds, when it starts with a backlog of overdue generations.

    benches/backlog.py target/release/recoup [OVERDUE]

Fills a database through the service's own schema, starts the service on it, and prints how long it took until /readyz said ready and
the resident memory then, after ten seconds, and at its peak. The status endpoint is a socket that nobody listens on.
"""
import json, os, signal, socket, sqlite3, subprocess, sys, tempfile, time, urllib.request, uuid

binary, count = os.path.abspath(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else 100_000
KEY = "a key of the benchmark"
folder = tempfile.TemporaryDirectory()
database = os.path.join(folder.name, "recoup.db")
with socket.socket() as free:
    free.bind(("127.0.0.1", 0))
    port = free.getsockname()[1]
environment = {
    "RECOUP_PROVIDER__API_KEY": "none", "RECOUP_PROVIDER__BASE_URL": "http://127.0.0.1:1", "RECOUP_API__KEY": KEY,
    "RECOUP_WEBHOOK__SECRETS": "a secret of the benchmark", "RECOUP_LOG__LEVEL": "off",
    "RECOUP_SERVER__LISTEN": f"127.0.0.1:{port}", "RECOUP_DATABASE__URL": f"sqlite://{database}",
}


def start():
    began = time.perf_counter()
    service = subprocess.Popen([binary, "serve"], cwd=folder.name, env=environment)
    while True:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/readyz", timeout=5) as answer:
                assert json.load(answer)["status"] == "ready"
            return service, time.perf_counter() - began
        except OSError:
            time.sleep(0.005)


def memory(service, field):
    with open(f"/proc/{service.pid}/status") as status:
        return next(int(line.split()[1]) for line in status if line.startswith(field)) / 1024


def stop(service):
    service.send_signal(signal.SIGTERM)
    assert service.wait(60) == 0


service, empty = start()
stop(service)
now = int(time.time() * 1000)
db = sqlite3.connect(database)
bought = now - 3 * 3600 * 1000
db.executemany(
    # of kling/o3-video, pending, bought through the gateway
    "INSERT INTO generations (uid, provider_id, family, status, model, duration_seconds, price_micros, recovered, via, created_at,"
    " submitted_at, expected_by, check_at, turn_at, checks, running_streak, not_found_streak, error_streak, late_answers, deliveries,"
    " outcomes, events) VALUES (?, ?, 1, 5, 'kling_o3', 5, 150000, 0, 1, ?, ?, ?, ?, ?, 0, 0, 0, 0, 0, 0, 0, 0)",
    ((uuid.uuid4().bytes, f"p-{n}", bought + n, bought + n, bought + n + 180_000, bought + n + 210_000, bought + n + 330_000)
     for n in range(count)),
)
db.commit()
db.close()
service, overdue = start()
at_once = memory(service, "VmRSS")
time.sleep(10)
later = memory(service, "VmRSS")
request = urllib.request.Request(f"http://127.0.0.1:{port}/v1/stats", headers={"Authorization": f"Bearer {KEY}"})
with urllib.request.urlopen(request) as answer:
    reads = json.load(answer)["reads"]
peak = memory(service, "VmHWM")
stop(service)
print(f"ready after {overdue * 1000:.0f} ms with {count} overdue ({empty * 1000:.0f} ms with none)")
print(f"resident {at_once:.1f} MB when ready, {later:.1f} MB after ten seconds, {peak:.1f} MB at the peak")
print(f"due {reads['due']}, worked off at {reads['worked_off_at']}")
