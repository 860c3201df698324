"""Load: webhooks at a fixed rate, id for id, and minutes of everything mixed. Latencies count from when each was to be sent."""
import array, collections, multiprocessing, os, select, socket, threading, time

import kept
from clients import QUIET, Watcher, p99, request, tells
from common import Broken, proves, require, webhook

CONNECTIONS = 32
PROCESSES = 2
LENGTHS = (20, 36)


def padded(name, nth):
    return f"{name}-{nth}".ljust(LENGTHS[0] + nth % (LENGTHS[1] - LENGTHS[0]), "_")


def at_rate(port, path, name, rate, seconds, told):
    """Sends so many webhooks a second, each on the next connection that is free. Tells which were answered 200, and how late each was in ms."""
    poll, free, sockets = select.epoll(), collections.deque(), {}
    for _ in range(CONNECTIONS):
        connection = socket.create_connection(("127.0.0.1", port))
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sockets[connection.fileno()] = connection
        poll.register(connection.fileno(), select.EPOLLIN)
        free.append(connection.fileno())
    # Of all lengths, as true ones are.
    forms = [request(path, webhook("@" * length)).split(b"@" * length) for length in range(*LENGTHS)]
    acknowledged, took_ms, pending, nth, total = array.array("L"), array.array("d"), {}, 0, int(rate * seconds)
    began = time.monotonic()
    end = began + seconds + 20
    while len(took_ms) < total:
        now = time.monotonic()
        if now > end:
            return told.put(f"{total - len(took_ms)} webhooks were not answered")
        while free and nth < total and began + nth / rate <= now:
            form = forms[nth % len(forms)]
            own = padded(name.decode(), nth).encode()
            connection = free.popleft()
            pending[connection] = nth
            sockets[connection].sendall(own.join(form))
            nth += 1
        wait = max(began + nth / rate - now, 0) if free and nth < total else 0.5
        for connection, _ in poll.poll(wait):
            said = sockets[connection].recv(4096)
            answered = pending.pop(connection)
            took_ms.append((time.monotonic() - began - answered / rate) * 1e3)
            if not said.startswith(b"HTTP/1.1 200"):
                return told.put(f"webhook {answered} was answered {said[:60]!r}")
            acknowledged.append(answered)
            free.append(connection)
    told.put((name.decode(), acknowledged.tobytes(), took_ms.tobytes(), time.monotonic() - began))


def pour(service, path, rate, seconds):
    """Webhooks from several processes. The ids that were acknowledged, latencies in ms, and the rate that was reached."""
    told = multiprocessing.Queue()
    names = [f"load-{nth}" for nth in range(PROCESSES)]
    senders = [multiprocessing.Process(target=at_rate, args=(service.port, path, name.encode(), rate / PROCESSES, seconds, told)) for name in names]
    for sender in senders:
        sender.start()
    acknowledged, latencies, slowest = set(), array.array("d"), 0.0
    try:
        for _ in senders:
            found = told.get(timeout=seconds + 60)
            if isinstance(found, str):
                raise Broken(found)
            name, ids, took, lasted = found
            own = array.array("L")
            own.frombytes(ids)
            acknowledged.update(padded(name, nth) for nth in own)
            latencies.frombytes(took)
            slowest = max(slowest, lasted)
    finally:
        for sender in senders:
            sender.kill()
            sender.join()
    return acknowledged, sorted(latencies), len(acknowledged) / slowest


@proves("G1", small=2_000, full=300_000, faults=["AcknowledgedUnkept"])
def rate(bench, webhooks):
    """5,000 webhooks a second for a minute, each answered after its commit: none is missing, id for id."""
    full = webhooks >= 300_000
    wanted = 5_000 if full else 500
    service = bench.serve(**QUIET)
    path = service.standing_path(bench)
    acknowledged, latencies, reached = pour(service, path, wanted, webhooks / wanted)
    lost = acknowledged - kept.ids(kept.copy(bench, service, "load"))
    require(not lost, f"{len(lost):,} of {len(acknowledged):,} acknowledged webhooks are not there, such as {min(lost, default='')}")
    require(len(acknowledged) == webhooks, f"only {len(acknowledged):,} were acknowledged")
    late = p99(latencies)
    floor_ms, floor_rate = (250, 2_000) if full else (2_000, 100)
    require(late <= floor_ms, f"p99 {late:.0f} ms")
    require(reached >= floor_rate, f"{reached:,.0f} a second")
    peak = service.figure("VmHWM") / 1024
    return (f"{len(acknowledged):,} at {reached:,.0f} a second, 0 missing; p50 {latencies[len(latencies) // 2]:.1f} ms, p99 {late:.1f} ms; "
            f"{peak:.0f} MB at most")


class Mixed:
    """Everything that callers do, each on a connection of its own, and how often it went wrong."""

    def __init__(self, service):
        self.service, self.acknowledged, self.bought, self.wrong, self.nth = service, set(), set(), [], 0

    def purchase(self):
        status, said, _ = self.service.call("POST", "/gateway/v1/kling/o3-video/generate", {"prompt": "a boat [sandbox: takes=1]", "duration": "5"})
        if status == 201:
            self.bought.add(said["generation_id"])
        return status

    def turn(self, nth):
        call = self.service.call
        wanted = [
            self.purchase,
            lambda: call("GET", "/v1/generations?limit=50")[0],
            lambda: call("GET", "/v1/generations?status=completed&limit=20&order=asc")[0],
            lambda: call("GET", "/v1/events?limit=20")[0],
            lambda: call("GET", "/v1/credits")[0],
            lambda: call("GET", "/v1/generations/warm")[0],
            lambda: call("GET", "/v1/stats")[0],
            lambda: call("GET", "/v1/models")[0],
            lambda: call("GET", "/v1/deliveries?limit=20")[0],
            lambda: call("GET", "/livez")[0],
            lambda: call("GET", "/metrics")[0],
        ]
        status = wanted[nth % len(wanted)]()
        if status not in (200, 201):
            self.wrong.append((nth % len(wanted), status))

    def run(self, rate, until, at_least):
        nth, began = 0, time.monotonic()
        while time.monotonic() < until or nth < at_least:
            self.turn(nth)
            nth += 1
            time.sleep(max(began + nth / rate - time.monotonic(), 0))


def slope(samples):
    """By how much the second grows with the first."""
    mean_x, mean_y = (sum(column) / len(samples) for column in zip(*samples))
    return sum((x - mean_x) * (y - mean_y) for x, y in samples) / sum((x - mean_x) ** 2 for x, _ in samples)


@proves("G21", small=8, full=600, faults=["LeftBehind"])
def soak(bench, seconds):
    """Ten minutes of webhooks, purchases, reads, lists and events: memory, descriptors and the log file stay flat."""
    full = seconds >= 600
    watcher = Watcher()
    tells(bench, f"{watcher.url}/events")
    sandbox = bench.sandbox("--speed", 100, "--status-reads-per-minute", 0)
    service = bench.serve(provider=sandbox.url, **QUIET)
    path = service.standing_path(bench)
    service.call("POST", path, webhook("warm"), key=None)
    mixed, samples, log = Mixed(service), [], os.path.join(service.folder, "recoup.db-wal")
    began = time.monotonic()
    calls = threading.Thread(target=mixed.run, args=(100, began + seconds, 400))
    found = {}
    webhooks = threading.Thread(target=lambda: found.update(zip(("ids", "ms", "rate"), pour(service, path, 400 if full else 200, seconds - 1))))
    for thread in (calls, webhooks):
        thread.start()
    while calls.is_alive():
        samples.append((time.monotonic() - began, service.figure("VmRSS") / 1024, service.descriptors(), os.path.getsize(log)))
        time.sleep(seconds / 120)
    webhooks.join()
    calls.join()
    require(found, "the webhooks were not all answered")
    require(not mixed.wrong, f"{len(mixed.wrong)} calls went wrong, such as {mixed.wrong[:3]}")
    lost = (found["ids"] | mixed.bought) - kept.ids(kept.copy(bench, service, "soak"))
    require(not lost, f"{len(lost)} are lost")
    warm = samples[len(samples) // 4:]
    grows = slope([(at / 60, memory) for at, memory, _, _ in warm])
    descriptors = [descriptors for _, _, descriptors, _ in warm]
    wal = max(size for *_, size in samples) / 2**20
    grown = warm[-1][1] - warm[0][1]
    require(grows <= 0.5 if full else grown <= 12, f"memory grows by {grown:.1f} MB, {grows:.1f} a minute")
    climbs = slope([(at / 60, descriptors) for at, _, descriptors, _ in warm])
    require(max(descriptors) <= 400 and climbs <= (2 if full else 1_000), f"descriptors: {max(descriptors)} at most, {climbs:+.1f} a minute")
    require(wal <= 64, f"the log file has {wal:.0f} MB")
    return (f"{seconds} s: {len(found['ids']):,} webhooks (p99 {p99(found['ms']):.0f} ms), {len(mixed.bought):,} purchases, {watcher.events():,} events, 0 lost; "
            f"memory {warm[0][1]:.0f} to {warm[-1][1]:.0f} MB ({grows:+.2f} a minute), descriptors {min(descriptors)} to {max(descriptors)}, log file {wal:.0f} MB")
