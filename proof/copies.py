"""Upgrades and copies: migrations killed midway, a backup under load and what it restores to, removal beside traffic, restarts."""
import contextlib, glob, hashlib, json, os, shutil, sqlite3, subprocess, threading, time

from common import ROOT, Broken, free_port, proves, require, until, webhook
from disk import CALLS, GENERATE, configure, side_by_side, spread
from traffic import Flood, Line, counted, ended, generations, known, strace, whole

MIGRATIONS = sorted(glob.glob(os.path.join(ROOT, "migrations", "*.sql")))


def unhex(text, ignored=""):
    try:
        return bytes.fromhex("".join(letter for letter in text if letter not in ignored))
    except ValueError:
        return None


def json_valid(text):
    if text is None:
        return None
    try:
        json.loads(text)
        return 1
    except ValueError:
        return 0


def fill(connection, rows):
    """Generations of every kind with what hangs on them, as the first schema holds them."""
    for n in range(rows):
        status = ("completed", "failed", "rejected", "processing", "submitting")[n % 5]
        settled = None if n % 5 > 2 else 7_300_000 + n
        learned = ("webhook", "token") if n % 5 < 2 else (None, None)
        theirs = None if n % 5 in (2, 4) else f"{n:08x}-4c1d-4f0a-9a57-2d6f3c8e91aa" if n % 3 else f"odd-{n}"
        connection.execute(
            "INSERT INTO generations (id, uid, provider_id, family, status, model, result_url, error_code, price_micros, source, verification, recovered, via,"
            " created_at, settled_at, check_at, turn_at, checks, running_streak, not_found_streak, error_streak, deliveries, outcomes, events, metadata)"
            " VALUES (?, ?, ?, 'kling/o3-video', ?, 'kling_o3', ?, ?, 84000, ?, ?, 0, 'api', ?, ?, ?, ?, 0, 0, 0, 0, ?, ?, ?, ?)",
            (n + 1, b"\1" + n.to_bytes(15, "big"), theirs, status, f"https://cdn.example/{n}.mp4" if n % 5 == 0 else None, "TIMEOUT" if n % 5 == 1 else None,
             *learned, 7_200_000 + n, settled, 9 << 40 if n % 5 == 3 else None, 9 << 40 if n % 5 == 4 else None,
             int(n % 5 < 2), int(n % 5 < 2), int(n % 5 < 2), json.dumps({"order": str(n)}) if n % 2 else "{}"))
        if n % 5 < 2:
            connection.execute("INSERT INTO outcomes (generation, version, at, status, source, verification, result_url, error_code) VALUES (?, 1, ?, ?, 'webhook', 'token', ?, ?)",
                               (n + 1, settled, status, f"https://cdn.example/{n}.mp4" if n % 5 == 0 else None, "TIMEOUT" if n % 5 else None))
            connection.execute("INSERT INTO deliveries (uid, generation, family, standing, received_at, disposition, body, body_bytes, body_sha256)"
                               " VALUES (?, ?, 'kling/o3-video', 0, ?, 'accepted', ?, 40, randomblob(32))", (b"\2" + n.to_bytes(15, "big"), n + 1, settled, b"{" + b" " * 38 + b"}"))
            connection.execute("INSERT INTO events (uid, generation, sequence, at, kind) VALUES (?, ?, 1, ?, ?)",
                               (b"\3" + n.to_bytes(15, "big"), n + 1, settled, f"generation.{status}"))


def landed(folder, version, rows):
    """A database as the version of that schema left it."""
    connection = sqlite3.connect(os.path.join(folder, "recoup.db"), isolation_level=None)
    # As the SQLite in the service has them; this machine's may be older.
    connection.create_function("unhex", -1, unhex, deterministic=True)
    connection.create_function("json_valid", 1, json_valid, deterministic=True)
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("CREATE TABLE _sqlx_migrations (version BIGINT PRIMARY KEY, description TEXT NOT NULL, installed_on TIMESTAMP NOT NULL DEFAULT"
                       " CURRENT_TIMESTAMP, success BOOLEAN NOT NULL, checksum BLOB NOT NULL, execution_time BIGINT NOT NULL)")
    for nth, path in enumerate(MIGRATIONS[:version], 1):
        with open(path) as file:
            sql = file.read()
        number, _, title = os.path.basename(path).removesuffix(".sql").partition("_")
        connection.executescript(f"BEGIN;\n{sql}\nCOMMIT;")
        connection.execute("INSERT INTO _sqlx_migrations (version, description, success, checksum, execution_time) VALUES (?, ?, 1, ?, 0)",
                           (int(number), title.replace("_", " "), hashlib.sha384(sql.encode()).digest()))
        if nth == 1:
            connection.execute("BEGIN")
            fill(connection, rows)
            connection.execute("COMMIT")
    connection.close()


def everything(service, rows):
    """What the API shows of a database."""
    told = {"generations": generations(service, "&order=asc"), "credits": service.call("GET", "/v1/credits")[1]}
    for kind in ("deliveries", "events"):
        told[kind], cursor = [], ""
        while cursor is not None:
            _, page, _ = service.call("GET", f"/v1/{kind}?limit=200{cursor and '&cursor=' + cursor}")
            told[kind] += page["data"]
            cursor = page["next_cursor"]
    require(len(told["generations"]) == rows and len(told["events"]) == rows * 2 // 5 == len(told["deliveries"]), "rows are missing")
    return told


def upgraded(bench, times, rows):
    """Kills upgrades from every schema, so many in all."""
    templates, expected, chosen, count = {}, {}, [], len(MIGRATIONS)
    for version in range(1, count):
        templates[version] = bench.subfolder(f"schema-{version}")
        landed(templates[version], version, rows)
        folder, log = os.path.join(bench.folder, f"probe-{version}"), os.path.join(bench.folder, "calls")
        shutil.copytree(templates[version], folder)
        wrap = strace(CALLS)
        wrap[wrap.index("/dev/null")] = log
        service = bench.serve(folder, wrap=wrap, RECONCILE__ENABLED="false")
        expected[version] = everything(service, rows)
        require(service.terminate() == 0, "does not stop")
        whole(folder)
        most = counted(log, CALLS.split(","))
        found = [(name, n) for name, number in sorted(most.items()) for n in range(1, number + 1) if not name.startswith(("write", "send"))]
        chosen += [(version, *point) for point in spread(bench.chance, found, -(-times // (count - 1)))]

    def one(numbered):
        number, (version, name, n) = numbered
        folder = os.path.join(bench.folder, f"killed-{number}")
        shutil.copytree(templates[version], folder)
        try:
            service = bench.serve(folder, wrap=strace(name, f"signal=SIGKILL:when={n}"), ready=False, RECONCILE__ENABLED="false")
            with contextlib.suppress(OSError, Broken):
                service.ready()
            died = ended(service, 0.05) is not None
            service.kill()
            service = bench.serve(folder, RECONCILE__ENABLED="false")
            require(everything(service, rows) == expected[version], "what it holds is not what it held")
            require(service.terminate() == 0, "does not stop")
            whole(folder)
        except Broken as broken:
            raise Broken(f"{broken} (schema {version} killed at {name} {n})") from None
        finally:
            shutil.rmtree(folder, ignore_errors=True)
        return died

    died = side_by_side(enumerate(chosen), one)
    return f"{sum(died)} killed at {len(chosen)} points from {count - 1} schemas of {rows:,} generations: 0 rows lost, every next start finished it"


@proves("G22", small=18, full=600, faults=["MigratedInPieces"])
def migrations(bench, times):
    """Killed at each call of an upgrade from each schema that has landed, the next start finishes it with every row; a newer schema is refused."""
    folder = bench.subfolder("newer")
    landed(folder, 1, 0)
    connection = sqlite3.connect(os.path.join(folder, "recoup.db"))
    connection.execute("INSERT INTO _sqlx_migrations (version, description, success, checksum, execution_time) VALUES (9000, 'of tomorrow', 1, x'00', 0)")
    connection.commit()
    connection.close()
    service = bench.serve(folder, ready=False)
    require(ended(service, 10) == 1 and "9000" in service.words(), f"a newer schema is not refused:\n{service.words()[-500:]}")
    return upgraded(bench, times, 1_000)


@proves("G22", small=None, full=30)
def large_migrations(bench, times):
    """The same with many rows: an upgrade that takes seconds, killed anywhere in it."""
    return upgraded(bench, times, 100_000)


def back_up(bench, folder, target):
    environment = {"PATH": os.environ["PATH"], "RECOUP_DATABASE__URL": f"sqlite://{folder}/recoup.db"} | bench.planting()
    copied = subprocess.run([bench.binary, "backup", os.path.join(target, "recoup.db")], env=environment, cwd=bench.folder, capture_output=True, text=True)
    require(copied.returncode == 0, f"the backup failed: {copied.stderr}")


@proves("G23", small=1, full=5, faults=["CopiedAsFile"])
def backups(bench, times):
    """A backup made under load holds everything acknowledged before it began, and what it does not know any more is found by asking."""
    sandbox, smallest = bench.sandbox("--speed", 3_000), None
    configure(bench.folder, more='[expected."kling/o3-video"]\nkling_o3 = { "5" = ["100ms", "500ms"] }\n[reconcile]\ngrace = "1s"\nwebhook_retry_window = "1s"\nrecheck = ["1s"]\n')
    for turn in range(times):
        folder = bench.subfolder(f"from-{turn}")
        shutil.copy(os.path.join(bench.folder, "config.toml"), folder)
        service = bench.serve(folder, provider=sandbox.url, WEBHOOK__CONFIRM="never", LOG__LEVEL="warn")
        flood, stop = Flood(service.port, service.standing_path(bench), 32, f"b{turn}"), threading.Event()
        running = threading.Thread(target=flood.run, kwargs={"stop": stop})
        running.start()
        until("some are acknowledged", lambda: len(flood.acknowledged) > 500, 30)
        bought = []
        for n in range(3):
            body = {"prompt": f"{turn} {n} [sandbox: takes={2 + n} lose]", "model": "kling_o3", "duration": "5"}
            status, answer, _ = service.call("POST", GENERATE, body)
            require(status == 201, f"a purchase is answered {status}")
            bought.append(answer["generation_id"])
        before = set(flood.acknowledged)
        target = bench.subfolder(f"to-{turn}")
        shutil.copy(os.path.join(folder, "config.toml"), target)
        back_up(bench, folder, target)
        after = set(flood.acknowledged)
        stop.set()
        running.join()
        require(flood.broken is None and not flood.refused, f"the backup disturbed webhooks: {flood.broken}, {len(flood.refused)} refused")
        # Beside a reader that holds on to an old state, what is acknowledged now stands in the log alone, whenever a checkpoint runs.
        with contextlib.closing(sqlite3.connect(os.path.join(folder, "recoup.db"), isolation_level=None)) as reader:
            reader.execute("BEGIN")
            reader.execute("SELECT count(*) FROM generations").fetchone()
            require(service.call("POST", service.standing_path(bench), webhook(f"last-{turn}"), key=None)[0] == 200, "does not take a webhook")
            quiet = bench.subfolder(f"quiet-{turn}")
            back_up(bench, folder, quiet)
        copy = bench.serve(quiet, **QUIET)
        require(f"last-{turn}" in known(copy), "the webhook acknowledged just before the backup is not in it")
        copy.kill()
        service.kill()
        whole(target)
        restored = bench.serve(target, provider=sandbox.url, WEBHOOK__CONFIRM="never", LOG__LEVEL="warn")
        kept = known(restored)
        require(before <= kept, f"{len(before - kept)} of {len(before)} webhooks acknowledged before the backup are not in it")
        until("what was open is found by asking", lambda: all(restored.call("GET", f"/v1/generations/{one}")[1].get("status") == "completed" for one in bought), 60, 0.2)
        restored.kill()
        smallest = min(len(before), smallest or len(before))
        during = len(after) - len(before)
    return f"{times} backups with at least {smallest:,} acknowledged before and {during:,} beside the last one: all in it, 0 refused; 3 open purchases each found by asking"


QUIET = {"WEBHOOK__CONFIRM": "never", "LOG__LEVEL": "warn", "RECONCILE__ENABLED": "false"}
# Everything settled is past it at once.
SHORT = {"RETENTION__PAYLOADS": "1s", "RETENTION__GENERATIONS": "1s", "RECONCILE__REFUND_WINDOW": "1s"}


class Unreadable:
    """Webhooks that nobody can read: kept once per body, which only their hashes tell."""

    def __init__(self, service, path, count):
        self.service, self.path, self.count = service, path, count

    def send(self):
        for n in range(self.count):
            status, _, _ = self.service.call("POST", self.path, f"garbage number {n}", key=None)
            require(status == 422, f"garbage is answered {status}")

    def kept(self):
        _, page, _ = self.service.call("GET", "/v1/deliveries?disposition=unreadable&limit=200")
        return [row["id"] for row in page["data"]]


@proves("contract 3", small=300, full=3_000, faults=["HashRemoved", "OpenMoneyRemoved", "RemovedForgotten"])
def retention_keeps(bench, amount):
    """Retention removes what is settled; money that is open and what guards against repeats stay."""
    service, opened = bench.serve(**QUIET), set()
    path = service.standing_path(bench)
    flood = Flood(service.port, path, 16, "r").run(most=amount)
    require(len(flood.acknowledged) == amount, f"only {len(flood.acknowledged)} are taken: {flood.broken}")
    for n in range(amount // 10):
        row = {"family": "kling/o3-video", "generation_id": f"open-{n}", "submitted_at": "2026-01-01T00:00:00Z", "price": "0.1500"}
        require(service.call("POST", "/v1/generations", row)[0] == 201, "cannot register")
        opened.add(f"open-{n}")
    garbage = Unreadable(service, path, 30)
    garbage.send()
    unreadable = garbage.kept()
    require(len(unreadable) == 30, f"{len(unreadable)} of 30 unreadable webhooks are kept")
    require(service.terminate() == 0, "does not stop")
    old()
    service = bench.serve(**QUIET, **SHORT)
    gone(service)
    require(opened <= known(service), f"{len(opened - known(service))} of {len(opened)} generations with open money were removed")
    until("raw bodies are gone", lambda: service.call("GET", f"/v1/deliveries/{unreadable[0]}")[1].get("body") is None, 60, 0.2)
    again = Unreadable(service, service.standing_path(bench), 30)
    again.send()
    require(sorted(again.kept()) == sorted(unreadable), "a webhook that was known is taken for a new one")
    before, told = known(service), service.call("GET", "/v1/events?limit=1")[1]["data"]
    repeats = Flood(service.port, service.standing_path(bench), 16, "r").run(most=amount)
    require(repeats.acknowledged == flood.acknowledged, f"not every repeat is answered: {repeats.broken}")
    require(known(service) == before and service.call("GET", "/v1/events?limit=1")[1]["data"] == told, "a webhook of a removed generation is taken for a new one")
    require(service.terminate() == 0, "does not stop")
    whole(bench.folder)
    return f"{amount:,} settled generations removed, their webhooks sent again: nothing new; {len(opened)} with open money and 30 hashes of removed bodies stay"


@proves("contract 3", small=None, full=60_000, faults=["RemovedAtOnce"])
def retention_beside_traffic(bench, amount):
    """While generations past their retention are removed in small batches, traffic beside them does not notice."""
    folder = bench.subfolder("kept")
    service = bench.serve(folder, **QUIET)
    flood = Flood(service.port, service.standing_path(bench), 64, "r").run(most=amount)
    require(len(flood.acknowledged) == amount, f"only {len(flood.acknowledged)} are taken: {flood.broken}")
    require(service.terminate() == 0, "does not stop")
    seconds, rate = 20, 300
    # The same traffic at the same rate on the same machine, once beside nothing.
    quiet, _ = measure(bench, shutil.copytree(folder, os.path.join(bench.folder, "quiet")), rate, seconds, QUIET)
    old()
    busy, service = measure(bench, folder, rate, seconds, QUIET | SHORT)
    require(busy <= 3 * quiet + 30, f"beside the removal the 99th percentile is {busy:.1f} ms, without {quiet:.1f} ms")
    gone(service)
    require(service.terminate() == 0, "does not stop")
    return f"{amount:,} generations removed: at {rate} webhooks a second p99 {busy:.1f} ms beside it, {quiet:.1f} ms without"


def old():
    """Waits until what is there is past the second that it is kept: a start looks once, and then in an hour."""
    sent = time.time()
    until("a second has passed", lambda: time.time() - sent > 1.2, 10, 0.05)


def gone(service):
    """Waits until what is old is removed."""
    first = lambda: service.call("GET", "/v1/generations?order=asc&limit=50")[1]["data"]
    until("what is old is gone", lambda: not any((row["generation_id"] or "").startswith("r-") for row in first()), 600, 0.2)


def listens(service):
    with contextlib.suppress(OSError):
        return service.call("GET", "/livez", key=None)[0] == 200


def measure(bench, folder, rate, seconds, settings):
    """The 99th percentile of webhooks at that rate from the moment the service listens: readiness waits for what is removed at once."""
    service = bench.serve(folder, ready=False, **settings)
    until("it listens", lambda: listens(service), 20, 0.005)
    flood = Flood(service.port, service.standing_path(bench), 64, f"m{os.path.basename(folder)}", rate).run(seconds)
    require(flood.broken is None and not flood.refused, f"not every webhook was taken: {flood.broken}, {len(flood.refused)} refused")
    if "RETENTION__PAYLOADS" not in settings:
        service.kill()
    return flood.percentile(99), service


class Insistent(threading.Thread):
    """Webhooks as the provider sends them: each again until it is acknowledged. Faster than the provider, or nothing would be under way."""

    def __init__(self, port, path, title):
        super().__init__(daemon=True)
        self.port, self.path, self.title, self.acknowledged, self.times, self.ending, self.attempts = port, path, title, set(), [], threading.Event(), 0

    def run(self):
        nth, line = 0, None
        while not self.ending.is_set():
            nth += 1
            mark, status = f"{self.title}-{nth}" + "x" * (nth % 9), None
            while status != 200:
                try:
                    self.attempts += 1
                    line = line or Line(self.port)
                    line.send(self.path, webhook(mark), mark)
                    while (status := line.status()) is None:
                        pass
                except OSError:
                    line, status = None, None
                    time.sleep(0.01)  # its pause between two attempts
            self.acknowledged.add(mark)
            self.times.append(time.monotonic())


@proves("G24", small=6, full=50, faults=["AcknowledgedUnkept"])
def restarts(bench, times):
    """Told to stop under load it ends in good order and comes back: nothing is lost, with a client that tries again as the provider does."""
    port, gaps = free_port(), []
    service = bench.serve(port=port, **QUIET)
    senders = [Insistent(port, service.standing_path(bench), f"s{n}") for n in range(8)]
    for sender in senders:
        sender.start()
    for _ in range(times):
        reached = sum(len(sender.acknowledged) for sender in senders) + 100
        until("traffic", lambda: sum(len(sender.acknowledged) for sender in senders) >= reached, 30)
        require(service.terminate() == 0, "does not stop in good order")
        last = max(sender.times[-1] for sender in senders)
        service = bench.serve(port=port, **QUIET)
        first = until("traffic goes on", lambda: min((at for sender in senders for at in sender.times[-50:] if at > last), default=None), 30, 0.005)
        gaps.append(first - last)
    for sender in senders:
        sender.ending.set()
    for sender in senders:
        sender.join(30)
    acknowledged = set().union(*(sender.acknowledged for sender in senders))
    kept = known(service)
    require(acknowledged <= kept, f"{len(acknowledged - kept)} of {len(acknowledged)} acknowledged webhooks are lost")
    again = sum(sender.attempts for sender in senders) - len(acknowledged)
    require(service.terminate() == 0, "does not stop in good order")
    whole(bench.folder)
    gaps.sort()
    bench.require_in_time(gaps[-1] < 5, f"a gap of {gaps[-1]:.1f} s")
    return f"{times} restarts, {len(acknowledged):,} acknowledged, {again:,} tried again: 0 lost; gaps of {gaps[len(gaps) // 2] * 1e3:.0f} ms in the median, {gaps[-1] * 1e3:.0f} ms at most"
