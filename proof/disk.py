"""What was acknowledged is on disk: kills, crash points, faults of the disk, a full one, a slow one, a second process."""
import concurrent.futures, contextlib, json, os, shutil, signal, sqlite3, subprocess, tempfile, threading, time

import images
from common import Broken, Missing, Service, free_port, proves, require, tool, until, webhook
from traffic import Endpoint, Flood, counted, ended, generations, known, strace, verdict, whole

# What touches the disk, and what tells somebody.
CALLS = "pwrite64,fsync,fdatasync,ftruncate,unlink,writev,write,sendto"
GENERATE = "/gateway/v1/kling/o3-video/generate"
# As many processes at a time as there are cores.
SIDE_BY_SIDE = max(2, os.cpu_count() or 2)


def configure(folder, endpoint=None, more=""):
    with open(os.path.join(folder, "config.toml"), "w") as file:
        file.write((endpoint.configuration() if endpoint else "") + more)


class Teller(threading.Thread):
    """Tells outcomes of prepared generations, each until it is acknowledged, as the provider does. `acknowledged`: our id -> the provider's."""

    def __init__(self, name):
        super().__init__(daemon=True)
        self.title, self.acknowledged, self.open, self.nth, self.service = name, {}, None, 0, None

    def tell(self):
        with contextlib.suppress(OSError):
            while True:
                if self.open is None:
                    self.nth += 1
                    status, answer, _ = self.service.call("POST", "/v1/generations", {"family": "kling/o3-video"}, timeout=5)
                    if status != 201:
                        return
                    self.open = answer["id"], answer["callback_url"].split("/", 3)[3]
                ours, path = self.open
                theirs = f"{self.title}-{self.nth}" + "x" * (self.nth % 9)
                status, _, _ = self.service.call("POST", "/" + path, webhook(theirs), key=None, timeout=5)
                if status != 200:
                    return
                self.acknowledged[ours], self.open = theirs, None


class Buyer(Teller):
    """Buys, each order under a key of its own, until it has an answer, and every third once more: a key holds after it was answered
    too, when an equal purchase without one is a new one. `acknowledged`: the order -> our id."""

    def tell(self):
        with contextlib.suppress(OSError):
            while True:
                if self.open is None:
                    self.nth += 1
                    self.open = f"{self.title}-{self.nth}"
                body, headers = {"prompt": self.open, "model": "kling_o3", "duration": "5"}, {"idempotency-key": self.open}
                status, answer, head = self.service.call("POST", GENERATE, body, headers=headers, timeout=10)
                if status not in (201, 504):
                    return
                order, self.open = self.open, None
                self.acknowledged[order] = head["recoup-generation"], answer.get("generation_id")
                if status == 201 and self.nth % 3 == 0:
                    self.service.call("POST", GENERATE, body, headers=headers, timeout=10)


@proves("G4", small=16, full=1_000, faults=["AcknowledgedUnkept", "IntentAfterwards", "KeyIgnored", "EventIdAnew"])
def kills(bench, times):
    """Killed at any moment under mixed load it loses nothing it acknowledged, buys nothing twice, and tells each event under one id."""
    endpoint, sandbox = Endpoint(refuse_every=7), bench.sandbox("--speed", 600, "--lose", 20, "--fail", 20)
    configure(bench.folder, endpoint, "[reconcile]\nenabled = false\n")
    tellers = [Teller(f"t{n}") for n in range(3)] + [Buyer(f"order-{n}") for n in range(2)]
    port, slowest_ms = free_port(), 0.0
    for _ in range(times):
        began = time.monotonic()
        service = bench.serve(port=port, provider=sandbox.url)
        slowest_ms = max(slowest_ms, (time.monotonic() - began) * 1e3)
        for teller in tellers:
            teller.service = service
        threads = [threading.Thread(target=teller.tell, daemon=True) for teller in tellers]
        for thread in threads:
            thread.start()
        # A moment is what is drawn here; nothing is waited for.
        time.sleep(bench.chance.uniform(0, 0.12))
        service.kill()
        for thread in threads:
            thread.join()
    service = bench.serve(port=port, provider=sandbox.url)
    told = {ours: theirs for teller in tellers[:3] for ours, theirs in teller.acknowledged.items()}
    rows = {row["id"]: row for row in generations(service)}
    lost = [ours for ours, theirs in told.items() if rows.get(ours, {}).get("generation_id") != theirs or rows[ours]["status"] != "completed"]
    require(not lost, f"{len(lost)} of {len(told)} acknowledged webhooks are lost")
    ledger = {}
    for bought in sandbox.ledger():
        ledger.setdefault(bought["prompt"], []).append(bought["id"])
    twice = [prompt for prompt, ids in ledger.items() if len(ids) > 1]
    require(not twice, f"{len(twice)} of {len(ledger)} orders were bought more than once")
    for buyer in tellers[3:]:
        for order, (ours, theirs) in buyer.acknowledged.items():
            require(ours in rows, f"{order} was answered and is not on record")
            require(theirs is None or ([theirs] == ledger.get(order) and rows[ours]["generation_id"] == theirs), f"{order} was answered {theirs}")
    until("every acknowledged outcome is told", lambda: all((ours, 1) in endpoint.events for ours in told), 60)
    endpoint.check()
    endpoint.close()
    require(service.terminate() == 0, "does not stop in good order")
    whole(bench.folder)
    bench.require_in_time(slowest_ms < 10_000, f"ready only after {slowest_ms:.0f} ms")
    return (f"{times:,} kills, {len(told):,} webhooks and {len(ledger):,} purchases: 0 lost, 0 bought twice, {len(endpoint.events):,} events in "
            f"{endpoint.asked:,} attempts under one id each; ready after {slowest_ms:.0f} ms at most")


def prepared(bench, **settings):
    """A folder with a database that has been in use, to be copied."""
    folder = bench.subfolder("prepared")
    service = bench.serve(folder, **settings)
    service.standing_path(bench)
    require(service.terminate() == 0, "does not stop")
    return folder


class Play:
    """One run of the scripted scenario in a folder of its own: what was acknowledged, step by step, until the service was gone."""

    def __init__(self, bench, number, template, sandbox):
        self.bench, self.number, self.sandbox = bench, number, sandbox
        self.folder = os.path.join(bench.folder, f"play-{number}")
        shutil.copytree(template, self.folder)
        self.prepared, self.kept, self.done, self.bought, self.refused = {}, {}, {}, None, 0

    def serve(self, **more):
        # A repeat of a purchase whose answer was lost is held: for less time than who asks here waits.
        service = Service(self.bench, self.folder, provider=self.sandbox.url, RECONCILE__ENABLED="false", GATEWAY__REPEAT_WAIT="1s", **more)
        self.bench.processes.append(service)
        return service

    def webhook(self, service, name, body, status=200):
        path = self.prepared[name][1]
        answered, _, _ = service.call("POST", path, body, key=None, timeout=20)
        if answered in (503, 500):
            self.refused += 1
            return False
        require(answered in (200, status), f"a webhook is answered {answered}, not {status}")
        self.kept.setdefault(name, []).append(body)
        return True

    def act(self, service):
        """Everything the first time it is seen, a repeat, a reason that comes later, a contradiction, garbage, purchases, facts, a refund."""
        mark = f"n{self.number}"
        for name in ("completed", "failed", "odd", "bound"):
            status, answer, _ = service.call("POST", "/v1/generations", {"family": "kling/o3-video"}, timeout=20)
            if status == 201:
                self.prepared[name] = answer["id"], "/" + answer["callback_url"].split("/", 3)[3]
        if "completed" in self.prepared:
            self.webhook(service, "completed", webhook(f"c-{mark}"))
            self.webhook(service, "completed", webhook(f"c-{mark}"))
        self.buy(service)
        if "failed" in self.prepared:
            self.webhook(service, "failed", webhook(f"f-{mark}", "failed"))
            self.webhook(service, "failed", webhook(f"f-{mark}", "failed", message="TIMEOUT"))
        if "odd" in self.prepared:
            self.webhook(service, "odd", "this is no JSON", 422)
            self.webhook(service, "odd", webhook(f"o-{mark}"))
            self.webhook(service, "odd", webhook(f"o-{mark}", "failed"))
        if "bound" in self.prepared:
            path = f"/v1/generations/{self.prepared['bound'][0]}"
            self.said(service, "bound", "PATCH", path, {"generation_id": f"b-{mark}", "price": "0.1500", "submitted_at": "2026-11-01T00:00:00Z"})
            self.said(service, "labelled", "PATCH", path, {"metadata": {"of": mark}})
            if self.webhook(service, "bound", webhook(f"b-{mark}", "failed", message="INVALID_IMAGE")) and "bound" in self.done:
                self.said(service, "refunded", "POST", f"{path}/refunds")
        for name in range(8):
            self.said(service, f"other-{name}", "POST", "/v1/generations", {"family": "kling/o1-video", "metadata": {"nth": str(name)}})

    def said(self, service, what, method, path, body=None):
        """Does what a caller may; notes it as done when it is answered so."""
        status, answer, _ = service.call(method, path, body, timeout=20)
        require(status in (200, 201, 503, 500), f"{what}: {method} {path} is answered {status}: {answer}")
        if status in (200, 201):
            self.done[what] = answer["id"]

    def buy(self, service):
        order = f"{self.bench.fault or 'as it is'} {self.number} [sandbox: lose]"
        body = {"prompt": order, "model": "kling_o3", "duration": "5"}
        status, answer, head = service.call("POST", GENERATE, body, headers={"idempotency-key": order[:250]}, timeout=20)
        require(status in (201, 409, 503, 504, 500), f"a purchase is answered {status}: {answer}")
        if status == 201 and head.get("recoup-unrecorded") is None:
            self.bought = head["recoup-generation"], answer["generation_id"]
        return order

    def verify(self):
        """A clean start: what was acknowledged is there, nothing is there by half, and what was not acknowledged can be told again."""
        service = self.serve()
        ids = [ours for ours, _ in self.prepared.values()]
        for name, (ours, path) in self.prepared.items():
            status, row, _ = service.call("GET", f"/v1/generations/{ours}")
            require(status == 200, f"{name} was prepared and is gone: {status}")
            self.half(service, ours)
            kept = self.kept.get(name, [])
            if any(json.loads(body)["status"] in ("completed", "failed") for body in kept if body.startswith("{")):
                require(row["status"] in ("completed", "failed"), f"{name} was acknowledged and is {row['status']}")
            if name == "failed" and len(kept) == 2:
                require((row["error"] or {}).get("code") == "TIMEOUT", f"the reason was acknowledged and is lost: {row['error']}")
        for what, ours in self.done.items():
            status, row, _ = service.call("GET", f"/v1/generations/{ours}")
            kept = {"bound": lambda: row["generation_id"] == f"b-n{self.number}" and row["price"] == "0.1500", "refunded": lambda: row["credits"] == "refunded",
                    "labelled": lambda: row["metadata"] == {"of": f"n{self.number}"}}.get(what, lambda: row["metadata"])
            require(status == 200 and kept(), f"{what} was answered and is not on record: {status} {row}")
        order = self.buy(service)
        calls = [bought for bought in self.sandbox.ledger() if bought["prompt"] == order]
        require(len(calls) <= 1, f"{order} was bought {len(calls)} times")
        if self.bought:
            ours, theirs = self.bought
            status, row, _ = service.call("GET", f"/v1/generations/{ours}")
            require(status == 200 and row["generation_id"] == theirs, f"a purchase that was answered is not on record: {status}")
        if "completed" in self.prepared:
            ours, path = self.prepared["completed"]
            require(service.call("POST", path, webhook(f"c-n{self.number}"), key=None)[0] == 200, "told again it is not taken")
            self.half(service, ours)
            require(service.call("GET", f"/v1/generations/{ours}")[1]["status"] == "completed", "told again it is not settled")
        require(service.terminate() == 0, "does not stop in good order")
        whole(self.folder)
        return ids

    def half(self, service, ours):
        """As many outcomes as events, and a state that fits."""
        _, timeline, _ = service.call("GET", f"/v1/generations/{ours}/timeline")
        _, row, _ = service.call("GET", f"/v1/generations/{ours}")
        entries = timeline["data"]
        kinds = [entry["kind"] for entry in entries]
        settled = row["status"] in ("completed", "failed")
        require(("outcome" in kinds) == settled, f"half of it: {row['status']} with {kinds}")
        told = [entry for entry in entries if entry["kind"] == "event"]
        require(any("completed" in str(entry) or "failed" in str(entry) for entry in told) == settled, f"half of it: {row['status']} with {kinds}")
        require(not settled or "delivery" in kinds, f"half of it: settled without a delivery: {kinds}")

    def close(self):
        shutil.rmtree(self.folder, ignore_errors=True)


def points(bench, template, sandbox, calls=CALLS, more=()):
    """Every (call, n) that the scenario comes by, by tracing it once."""
    play, log = Play(bench, "probe", template, sandbox), os.path.join(bench.folder, "calls")
    wrap = strace(calls, more=more)
    wrap[wrap.index("/dev/null")] = log
    service = play.serve(wrap=wrap)
    play.act(service)
    require(service.terminate() == 0, "does not stop under strace")
    most = counted(log, calls.split(","))
    play.close()
    return [(name, n) for name, count in sorted(most.items()) for n in range(1, count + 1)]


def spread(chance, all_points, times):
    """So many of them: two thirds of them writes, for most is between two of these, and of every other call about as many."""
    chance.shuffle(all_points)
    writes = [point for point in all_points if point[0] == "pwrite64"]
    seen, ranked = {}, []
    for point in all_points:
        if point[0] != "pwrite64":
            seen[point[0]] = seen.get(point[0], 0) + 1
            ranked.append((seen[point[0]], len(ranked), point))
    others = [point for _, _, point in sorted(ranked)]
    few = max(times - len(writes), times // 3)
    return (others[:few] + writes)[:times]


def side_by_side(runs, one, at_a_time=SIDE_BY_SIDE):
    """Runs all, some at a time; what the first that breaks says. Nothing is begun after that."""
    with concurrent.futures.ThreadPoolExecutor(at_a_time) as pool:
        futures = [pool.submit(one, run) for run in runs]
        try:
            return [future.result() for future in futures]
        finally:
            for future in futures:
                future.cancel()


@proves("G5", small=40, full=600, faults=["HalfCommitted", "AnsweredBeforeCommit", "IntentAfterwards"])
def crash_points(bench, times):
    """Killed at each of its writes, syncs, truncations and sends, it has everything it acknowledged and nothing by half."""
    sandbox = bench.sandbox()
    template = prepared(bench)
    chosen = spread(bench.chance, points(bench, template, sandbox), times)

    def one(numbered):
        number, (name, n) = numbered
        play = Play(bench, number, template, sandbox)
        died = True
        try:
            service = play.serve(wrap=strace(name, f"signal=SIGKILL:when={n}"), ready=False)
            with contextlib.suppress(OSError, Broken):
                service.ready()
            if service.alive():
                with contextlib.suppress(OSError):
                    play.act(service)
                if ended(service, 0.05) is None:
                    service.process.send_signal(signal.SIGTERM)
            died = ended(service, 20) != 0
            play.verify()
        except Broken as broken:
            raise Broken(f"{broken} (killed at {name} {n})") from None
        finally:
            play.close()
        return died

    died = side_by_side(enumerate(chosen), one)
    require(sum(died) > len(chosen) // 2, f"only {sum(died)} of {len(chosen)} were killed")
    kinds = sorted({name for name, _ in chosen})
    return f"{sum(died)} killed at {len(chosen)} points of {', '.join(kinds)}: 0 acknowledged lost, 0 half states, 0 bought twice"


@proves("G7", small=48, full=300, faults=["FailureAcknowledged", "FailedSyncIgnored"])
def disk_faults(bench, times):
    """EIO and ENOSPC at each of its calls: no 200 for what is not kept, a failed sync ends it with a message, the next start is clean."""
    sandbox = bench.sandbox()
    template = prepared(bench)
    found = points(bench, template, sandbox, "pwrite64,fsync,fdatasync,ftruncate,openat", disk_only("probe", bench))
    found = [(name, n, error) for name, n in found for error in ("EIO", "ENOSPC")]
    # A quarter where a sync fails, which must end it, and half where there is no space to write, which must be told: among all calls few are.
    failed_syncs = [point for point in found if point[0] in ("fsync", "fdatasync") and point[2] == "EIO"]
    no_space = [point for point in found if point[0] == "pwrite64" and point[2] == "ENOSPC"]
    first = [one for kind, share in ((failed_syncs, 4), (no_space, 2)) for one in bench.chance.sample(kind, min(len(kind), times // share))]
    chosen = list(dict.fromkeys(first + spread(bench.chance, found, times)))[:times]

    def one(numbered):
        number, (name, n, error) = numbered
        play = Play(bench, number, template, sandbox)
        try:
            wrap = strace(name, f"error={error}:when={n}", ["--seccomp-bpf", *disk_only(number, bench)])
            service = play.serve(wrap=wrap, ready=False)
            with contextlib.suppress(OSError, Broken):
                service.ready(10)
            if service.alive():
                with contextlib.suppress(OSError):
                    play.act(service)
            is_sync = name in ("fsync", "fdatasync")
            code = ended(service, 5 if is_sync and error == "EIO" else 0.05)
            by_itself = code is not None
            if not by_itself:
                service.process.send_signal(signal.SIGTERM)
                code = ended(service, 30)
            said = service.words()
            require(code is not None and code >= 0, f"it did not stop in good order: {code}")
            if is_sync and error == "EIO" and "I/O error" in said:
                require(code != 0 and "error:" in said, f"a sync failed and it went on: it ended with {code}\n{said[-300:]}")
            require(code == 0 or "error:" in said, f"it ended without a word: {said[-500:]}")
            play.verify()
            return by_itself, play.refused
        except Broken as broken:
            raise Broken(f"{broken} ({error} at {name} {n})") from None
        finally:
            play.close()

    results = side_by_side(enumerate(chosen), one)
    ends, refusals = sum(by_itself for by_itself, _ in results), sum(refused for _, refused in results)
    return f"{len(chosen)} faults: {ends} ended it with a message, {refusals} webhooks refused, 0 false 200, every start after it clean"


def disk_only(number, bench):
    """Only what is done to the database's files."""
    folder = os.path.join(bench.folder, f"play-{number}")
    return [part for ending in ("", "-wal", "-shm") for part in ("-P", f"{folder}/recoup.db{ending}")]


@proves("G6", small=300, full=20_000, faults=["SyncNormal", "AnsweredBeforeCommit"])
def power_loss(bench, times):
    """Whatever part of the writes that were not synced is gone with the power, every acknowledged webhook is there and the database is whole."""
    log = os.path.join(bench.folder, "calls")
    wrap = [tool("strace"), "-D", "-f", "-qq", "-xx", "-s", "100000", "-o", log, "-e", f"trace={images.CALLS}", "-e", "signal=none"]
    service = bench.serve(wrap=wrap, WEBHOOK__CONFIRM="never", LOG__LEVEL="off", RECONCILE__ENABLED="false")
    # One after the other, so that the log is copied and begun anew many times; then many at once, in groups.
    floods = [Flood(service.port, service.standing_path(bench), lines, f"w{lines}").run(most=most) for lines, most in ((1, 200), (16, 300))]
    acknowledged = floods[0].acknowledged | floods[1].acknowledged
    require(len(acknowledged) == 500, f"{len(acknowledged)} of 500 webhooks are acknowledged: {[flood.broken for flood in floods]}")
    service.terminate()
    found = images.steps(log, bench.folder)
    found = [step for step in found if step[0] != "answer" or step[1] in acknowledged]
    answered = {step[1] for step in found if step[0] == "answer"}
    require(acknowledged == answered, f"the trace shows {len(answered)} answers")
    seeds = [bench.chance.randrange(1 << 30) for _ in range(SIDE_BY_SIDE)]
    first = next(n for n, step in enumerate(found) if step[0] == "answer")
    # Nine of ten under load, the others from the making of the database on.
    place = lambda: bench.chance.randrange(first if bench.chance.random() < 0.9 else 0, len(found))
    places = [[place() for _ in range(times // SIDE_BY_SIDE)] for _ in seeds]
    folders = [tempfile.mkdtemp(prefix="recoup-images-", dir="/dev/shm" if os.path.isdir("/dev/shm") else None) for _ in seeds]
    try:
        with concurrent.futures.ProcessPoolExecutor(SIDE_BY_SIDE) as pool:
            judged = list(pool.map(images.judge, [found] * len(seeds), folders, ["recoup.db"] * len(seeds), seeds, places))
    finally:
        for folder in folders:
            shutil.rmtree(folder, ignore_errors=True)
    total = sum(count for count, _, _ in judged)
    lost, corrupt = [word for _, words, _ in judged for word in words], [word for _, _, words in judged for word in words]
    require(not corrupt, f"{len(corrupt)} of {total} images are corrupt; the first {corrupt[:1]}")
    require(not lost, f"{len(lost)} of {total} images lost acknowledged webhooks; the first {lost[:1]}")
    syncs = sum(step[0] == "end" for step in found)
    return f"{total:,} images of {syncs} syncs, {len(found):,} steps and 500 acknowledged webhooks: 0 lost, 0 corrupt"


@proves("G7", small=2, full=12, faults=["FailedSyncIgnored"])
def failed_checkpoints(bench, times):
    """A failed write or sync while the log is copied into the database ends it before anything more is acknowledged; nothing is lost."""
    template, total = prepared(bench), 0
    log_into_file(template)
    for turn in range(times):
        folder, call = os.path.join(bench.folder, f"copied-{turn}"), ("fsync,fdatasync", "pwrite64")[turn % 2]
        shutil.copytree(template, folder)
        # Of the database itself, not of its log: only copying the log touches it.
        wrap = strace(call, f"error=EIO:when={turn // 2 + 1}", ["--seccomp-bpf", "-P", f"{folder}/recoup.db"])
        service = bench.serve(folder, wrap=wrap, WEBHOOK__CONFIRM="never")
        flood = Flood(service.port, service.standing_path(bench), 1, f"n{turn}").run(most=400)
        code = ended(service, 10)
        require(code == 1 and "the database is broken" in service.words(), f"{call} failed in a checkpoint and it ended with {code} after "
                f"{len(flood.acknowledged)} webhooks:\n{service.words()[-300:]}")
        service = bench.serve(folder)
        kept = known(service)
        require(flood.acknowledged <= kept, f"{len(flood.acknowledged - kept)} of {len(flood.acknowledged)} acknowledged webhooks are lost")
        require(service.terminate() == 0, "does not stop in good order")
        whole(folder)
        total += len(flood.acknowledged)
    return f"{times} failed: each ended it with a message; {total:,} acknowledged before, 0 lost"


@contextlib.contextmanager
def small_disk(folder, mebibytes):
    """A disk of its own that can be filled."""
    if subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={mebibytes}m", "tmpfs", folder], capture_output=True).returncode:
        raise Missing("a small disk cannot be mounted: run as root")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", folder], check=True)


def fill(folder, leave):
    """Takes all room but so many bytes."""
    room = os.statvfs(folder)
    with open(os.path.join(folder, "ballast"), "wb") as ballast:
        os.posix_fallocate(ballast.fileno(), 0, max(4096, room.f_bavail * room.f_frsize - leave))


@proves("G7", small=2, full=10, faults=["FailureAcknowledged"])
def full_disk(bench, times):
    """On a full disk webhooks and purchases get 503 with Retry-After, nothing is bought, reads go on, and it recovers within 5 s of space."""
    sandbox, slowest, acknowledged, refused, orders = bench.sandbox(), 0.0, set(), 0, {}
    with small_disk(bench.subfolder("small"), 24) as folder:
        service = bench.serve(folder, provider=sandbox.url, WEBHOOK__CONFIRM="never", RECONCILE__ENABLED="false")
        path, nth = service.standing_path(bench), 0

        def tell():
            nonlocal nth
            nth += 1
            status, _, head = service.call("POST", path, webhook(f"w-{nth}"), key=None)
            if status == 200:
                acknowledged.add(f"w-{nth}")
            else:
                require(status == 503 and int(head["retry-after"]) > 0, f"on a full disk a webhook is answered {status}")
            return status

        for turn in range(times):
            fill(folder, bench.chance.randrange(0, 200_000))
            # At most as many as there was ever room for.
            if not any(tell() == 503 for _ in range(1_500)):
                break
            for _ in range(5):
                refused += tell() == 503
                order = f"order {len(orders)}"
                status, answer, head = service.call("POST", GENERATE, {"prompt": order, "model": "kling_o3", "duration": "5"})
                require(status == 201 or (status == 503 and int(head["retry-after"]) > 0), f"on a full disk a purchase is answered {status}: {answer}")
                orders[order] = status
                require(service.call("GET", "/v1/generations?limit=5")[0] == 200, "reads do not go on")
                require(service.call("GET", "/v1/credits")[0] == 200, "reads do not go on")
                require(service.call("GET", "/livez")[0] == 200, "it is not alive")
            os.unlink(os.path.join(folder, "ballast"))
            began = time.monotonic()
            until("taken again", lambda: tell() == 200, 20)
            slowest = max(slowest, time.monotonic() - began)
            require(service.alive(), f"it ended:\n{service.words()[-500:]}")
        bought = {bought["prompt"] for bought in sandbox.ledger()}
        refusals = {order for order, status in orders.items() if status == 503}
        require(not bought & refusals, f"{len(bought & refusals)} purchases were refused and bought")
        require({order for order, status in orders.items() if status == 201} <= bought, "a purchase was answered and not made")
        service.kill()
        with contextlib.suppress(FileNotFoundError):
            os.unlink(os.path.join(folder, "ballast"))
        service = bench.serve(folder, provider=sandbox.url, RECONCILE__ENABLED="false")
        kept = known(service)
        require(acknowledged <= kept, f"{len(acknowledged - kept)} of {len(acknowledged)} acknowledged webhooks are lost")
        require(refusals and refused, "the disk was never full")
        require(service.terminate() == 0, "does not stop in good order")
        whole(folder)
    bench.require_in_time(slowest <= 5, f"it recovers only {slowest:.1f} s after there is space")
    return (f"{times} times full: {refused} webhooks and {len(refusals)} purchases refused, 0 of them bought, {len(acknowledged)} acknowledged, "
            f"0 lost; recovered {slowest * 1e3:.0f} ms after there was space at most")


def log_into_file(folder):
    """Copies the log into the database, as the last one to close it does."""
    connection = sqlite3.connect(os.path.join(folder, "recoup.db"))
    connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
    connection.close()


def refuses(bench, folder, names, seconds=10):
    """A start that must end with a message that names the file; creates and removes nothing."""
    before = {name: os.stat(os.path.join(folder, name)).st_ino for name in os.listdir(folder) if name.startswith("recoup.db")}
    service = bench.serve(folder, ready=False)
    code = ended(service, seconds)
    service.kill()
    require(code not in (None, 0), f"it starts all the same: {code}")
    said = service.words()
    require(names in said, f"its last words do not name {names}:\n{said[-600:]}")
    after = {name: os.stat(os.path.join(folder, name)).st_ino for name in os.listdir(folder) if name.startswith("recoup.db")}
    before.setdefault("recoup.db.lock", after.get("recoup.db.lock"))
    require(after == before, f"it made or removed files: {sorted(before)}, then {sorted(after)}")
    return code


def take(bench, turn, ending, how, idle):
    """How long it took until the service had ended, in seconds. `idle`: nobody writes, it finds out by itself."""
    folder, file = bench.subfolder(f"taken-{turn}{ending}-{how}"), f"recoup.db{ending}"
    service = bench.serve(folder, WEBHOOK__CONFIRM="never")
    path, taken, elsewhere = service.standing_path(bench), os.path.join(folder, file), os.path.join(folder, "elsewhere")
    require(service.call("POST", path, webhook("before"), key=None)[0] == 200, "does not take a webhook")
    os.rename(taken, elsewhere)
    if how == "replaced":
        shutil.copy(elsewhere, taken)
    began = time.monotonic()
    if not idle:
        with contextlib.suppress(OSError):
            status, _, _ = service.call("POST", path, webhook("after"), key=None)
            require(status == 503, f"{file} is {how} and a webhook is answered {status}")
    code = ended(service, 30)
    require(code == 1, f"{file} is {how} and it ends with {code}")
    seconds = time.monotonic() - began
    require(f"{file} was removed or replaced" in service.words(), f"it does not say why:\n{service.words()[-600:]}")
    if how == "removed":
        require(not os.path.exists(taken), f"{file} was made anew")
        if not ending:
            refuses(bench, folder, "recoup.db is gone")
    # The file put back, everything is as it was.
    os.replace(elsewhere, taken)
    service = bench.serve(folder, WEBHOOK__CONFIRM="never")
    require("before" in known(service), "the file was put back, and an acknowledged webhook is lost")
    service.kill()
    return seconds


@proves("E6", small=1, full=10, faults=["FilesUnwatched"])
def files_taken(bench, times):
    """A file of the database that is removed or replaced while it runs is named, nothing more is acknowledged, and nothing is made anew."""
    cases = [(turn, ending, how) for turn in range(times) for ending in ("", "-wal", "-shm", ".lock") for how in ("removed", "replaced")]
    idle = set(bench.chance.sample(cases, times))
    slowest = max(side_by_side(cases, lambda case: take(bench, *case, case in idle), 8))
    return f"{times} times each of 4 files removed and replaced: named, 0 acknowledged after, the end within {slowest * 1e3:.0f} ms; put back, 0 lost"


@proves("E4", small=4, full=20, faults=["CorruptReplaced"])
def corrupt(bench, times):
    """A corrupt file, one that is no database, or a folder that cannot be written ends it with a message, and is left as it is."""
    template, noticed = bench.subfolder("template"), 0
    service = bench.serve(template, WEBHOOK__CONFIRM="never")
    flood = Flood(service.port, service.standing_path(bench), 8, "c").run(most=400)
    require(service.terminate() == 0 and len(flood.acknowledged) == 400, "does not take 400 webhooks and stop")
    log_into_file(template)
    for turn in range(times):
        # At the start: any page.
        folder = os.path.join(bench.folder, f"corrupt-{turn}")
        shutil.copytree(template, folder)
        database = os.path.join(folder, "recoup.db")
        pages = os.path.getsize(database) // 4096
        with open(database, "r+b") as file:
            file.seek(4096 * (pages - 1 - bench.chance.randrange(pages // 2)))
            file.write(bench.chance.randbytes(4096))
        if verdict(folder) != "ok":
            inode = os.stat(database).st_ino
            service = bench.serve(folder, ready=False)
            code = ended(service, 20)
            require((os.stat(database).st_ino, os.path.getsize(database)) == (inode, pages * 4096), "the corrupt file was replaced")
            require(code == 1 and ("corrupt" in service.words() or "malformed" in service.words()), f"a corrupt page is not noticed: {code}\n{service.words()[-500:]}")
            noticed += 1
        # No database at all.
        with open(database, "wb") as file:
            file.write(bench.chance.randbytes(50_000))
        letter = open(database, "rb").read()
        for ending in ("-wal", "-shm"):
            with contextlib.suppress(FileNotFoundError):
                os.unlink(database + ending)
        refuses(bench, folder, "recoup.db")
        require(open(database, "rb").read() == letter, "a file that is no database was written to")
        shutil.rmtree(folder)
    # While it runs: everything behind the first page.
    folder = bench.subfolder("running")
    shutil.copytree(template, folder, dirs_exist_ok=True)
    service = bench.serve(folder, WEBHOOK__CONFIRM="never")
    path, database = service.standing_path(bench), os.path.join(folder, "recoup.db")
    with open(database, "r+b") as file:
        file.seek(4096)
        file.write(os.urandom(os.path.getsize(database) - 4096))
    with contextlib.suppress(OSError):
        for nth in range(200):
            service.call("POST", path, webhook(f"r-{nth}"), key=None)
            service.call("GET", "/v1/generations?limit=200&order=asc")
            service.call("GET", "/v1/deliveries?limit=200")
    require(ended(service, 15) == 1, f"a file that is corrupted while it runs is not noticed:\n{service.words()[-500:]}")
    require("malformed" in service.words() or "corrupt" in service.words(), "it does not say why")
    # A folder that cannot be written.
    with small_disk(bench.subfolder("sealed"), 4) as folder:
        subprocess.run(["mount", "-o", "remount,ro", folder], check=True)
        sealed = Service(bench, bench.folder, ready=False, DATABASE__URL=f"sqlite://{folder}/recoup.db")
        bench.processes.append(sealed)
        require(ended(sealed, 10) == 1 and folder in sealed.words(), f"it does not say that it cannot write there:\n{sealed.words()[-500:]}")
    return f"{noticed} corrupt at the start, {times} no database, 1 while it ran, 1 read-only folder: each ended it with a message, 0 replaced"


@proves("G2", small=2, full=20, faults=["AnsweredBeforeCommit"], floor="500/s, 100/s")
def slow_fsync(bench, seconds):
    """With every sync slowed by 5 and by 50 ms it takes many webhooks a second all the same, and loses none at a kill."""
    told = []
    for delay_ms, floor in ((5, 500), (50, 100)):
        folder = bench.subfolder(f"slow-{delay_ms}")
        wrap = strace("fsync,fdatasync", f"delay_exit={delay_ms * 1_000}", ["--seccomp-bpf"])
        service = bench.serve(folder, wrap=wrap, WEBHOOK__CONFIRM="never", LOG__LEVEL="off", RECONCILE__ENABLED="false", SERVER__MAX_CONNECTIONS="1024")
        flood, stop = Flood(service.port, service.standing_path(bench), 256, "s"), threading.Event()
        running = threading.Thread(target=flood.run, kwargs={"stop": stop})
        running.start()
        stop.wait(seconds)
        rate = len(flood.acknowledged) / seconds
        service.kill()
        stop.set()
        running.join()
        service = bench.serve(folder, RECONCILE__ENABLED="false")
        kept = known(service)
        require(flood.acknowledged <= kept, f"{len(flood.acknowledged - kept)} of {len(flood.acknowledged)} acknowledged webhooks are lost")
        bench.require_in_time(rate >= floor, f"with syncs slowed by {delay_ms} ms only {rate:,.0f} webhooks a second, not {floor}")
        service.kill()
        told.append(f"{rate:,.0f}/s with {delay_ms} ms more, p99 {flood.percentile(99):,.0f} ms")
    return f"{' and '.join(told)}; 0 lost at the kill"


@proves("G16", small=12, full=200, faults=["LockIgnored"])
def second_process(bench, times):
    """Of two that start on one database exactly one serves; the other exits with 75 within 2 s, names it, and leaves nothing behind a kill."""
    slowest = 0.0
    for turn in range(times):
        pair, began = [bench.serve(ready=False), bench.serve(ready=False)], time.monotonic()
        until("one of two ends", lambda: any(not one.alive() for one in pair), 10, 0.005)
        slowest = max(slowest, time.monotonic() - began)
        loser, winner = sorted(pair, key=lambda one: one.alive())
        require(loser.process.returncode == 75, f"the second one exits with {loser.process.returncode}:\n{loser.words()[-500:]}")
        require(f"process {winner.pid} holds" in loser.words(), f"it does not name process {winner.pid}:\n{loser.words()[-300:]}")
        winner.ready()
        os.truncate(winner.log, 0)
        if turn % 2:
            third = bench.serve(ready=False)
            require(ended(third, 5) == 75, "a third one is let in while one serves")
        winner.kill()
    last = bench.serve()
    require(last.terminate() == 0, "does not stop in good order")
    whole(bench.folder)
    bench.require_in_time(slowest <= 2, f"the loser exits only after {slowest:.1f} s")
    return f"{times} double starts: one server each time, the other exits with 75 within {slowest * 1e3:.0f} ms and names it; 0 stale locks"
