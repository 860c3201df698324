"""Hostile clients: slow ones, too many, forged webhooks, hang-ups. Whoever is honest does not notice, and nothing of theirs is kept."""
import asyncio, base64, contextlib, http.server, multiprocessing, os, re, socket, sqlite3, struct, subprocess, threading, time, urllib.parse

import kept
from common import KEY, PROVIDER_KEY, Broken, proves, require, tool, until, webhook

CLOSED_WITHIN = 12.0
QUIET = {"LOG__LEVEL": "off", "WEBHOOK__CONFIRM": "never"}


def request(path, body, *headers, method="POST"):
    """A request as bytes."""
    body = body.encode() if isinstance(body, str) else body
    lines = [f"{method} {path} HTTP/1.1", "host: proof", f"content-length: {len(body)}", *headers]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


class Answer:
    """One HTTP answer off a stream."""

    def __init__(self, head, body):
        self.head, self.body = head, body
        self.status = int(head[9:12])

    def header(self, name):
        found = re.search(rb"(?im)^" + name.encode() + rb":\s*(.*?)\r?$", self.head)
        return found.group(1).decode() if found else None


async def answer(reader):
    head = await reader.readuntil(b"\r\n\r\n")
    length = re.search(rb"(?im)^content-length:\s*(\d+)", head)
    return Answer(head, await reader.readexactly(int(length.group(1))) if length else b"")


# Slow connections.


async def drip(writer, piece, seconds):
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        writer.write(piece)
        await writer.drain()
        await asyncio.sleep(0.5)


async def silent(writer, path):
    """Says nothing at all."""


async def half_a_head(writer, path):
    writer.write(b"POST / HTTP/1.1\r\nhost: pro")


async def dripping_head(writer, path):
    writer.write(b"POST / HTTP/1.1\r\n")
    await drip(writer, b"x: y\r\n", 60)


async def dripping_body(writer, path):
    writer.write(f"POST {path} HTTP/1.1\r\nhost: proof\r\ncontent-length: 60000\r\n\r\n".encode())
    await drip(writer, b" ", 60)


async def half_a_second_request(writer, path):
    writer.write(b"GET /livez HTTP/1.1\r\nhost: proof\r\n\r\nGET /live")


async def chunks_without_end(writer, path):
    writer.write(f"POST {path} HTTP/1.1\r\nhost: proof\r\ntransfer-encoding: chunked\r\n\r\n".encode())
    await drip(writer, b"1\r\n \r\n", 60)


SLOW = [silent, half_a_head, dripping_head, dripping_body, half_a_second_request, chunks_without_end]


async def held(port, path, kind, patience):
    """How long one hostile connection is kept; it hangs up itself when its patience ends."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    began = time.monotonic()
    speaking = asyncio.ensure_future(kind(writer, path))
    with contextlib.suppress(OSError, asyncio.TimeoutError):
        async with asyncio.timeout(patience):
            while await reader.read(4096):
                pass
    lasted = time.monotonic() - began
    speaking.cancel()
    with contextlib.suppress(OSError, asyncio.CancelledError):
        await speaking
    writer.transport.abort()
    return lasted


async def besiege(port, path, connections, seconds, to_the_end, told):
    """Keeps so many hostile connections open for so long, and those of then until they are closed; the longest that each kind was kept."""
    end, longest = time.monotonic() + seconds, {}

    async def one(nth):
        kind = SLOW[nth % len(SLOW)]
        while time.monotonic() < end and max(longest.values(), default=0) <= CLOSED_WITHIN:
            try:
                lasted = await held(port, path, kind, CLOSED_WITHIN + 4 if to_the_end else max(end - time.monotonic(), 0.1))
                longest[kind.__name__] = max(longest.get(kind.__name__, 0), lasted)
            except OSError:
                pass
            await asyncio.sleep(1)

    await asyncio.gather(*(one(nth) for nth in range(connections)))
    told.put(longest)


def besieged(*siege):
    """A siege by another process; its end, and what it found."""
    told = multiprocessing.Queue()
    siege_process = multiprocessing.Process(target=lambda: asyncio.run(besiege(*siege, told)))
    siege_process.start()
    return siege_process, told


def honest(service, path, siege, again=False, pause=0.02):
    """Webhooks on fresh connections and on kept ones by turns, while the siege lasts. What each took, in ms. With `again` one that is turned
    away at once is sent again, as the provider does, only sooner."""
    took, nth, kept_open, turned_away = [], 0, None, False
    while siege.is_alive():
        if not turned_away:
            nth += 1
            began = time.monotonic()
        turned_away = False
        try:
            fresh = kept_open is None or nth % 2
            connection = socket.create_connection(("127.0.0.1", service.port), 5) if fresh else kept_open
            connection.settimeout(5)
            connection.sendall(request(path, webhook(f"honest-{nth}")))
            said = connection.recv(4096)
            if not said:
                raise ConnectionResetError("closed without a word")
            require(said.startswith(b"HTTP/1.1 200"), f"an honest webhook was answered {said[:60]!r}")
            if fresh and nth % 2:
                connection.close()
            else:
                kept_open = connection
        except ConnectionError as error:
            require(again and time.monotonic() - began < 5, f"an honest webhook was not answered after {time.monotonic() - began:.1f} s: {error!r}")
            kept_open, turned_away = None, True
            time.sleep(0.1)
            continue
        except OSError as error:
            raise Broken(f"an honest webhook was not answered after {time.monotonic() - began:.1f} s: {error!r}") from error
        took.append((time.monotonic() - began) * 1e3)
        time.sleep(pause)
    return sorted(took)


def p99(sorted_ms):
    return sorted_ms[int(len(sorted_ms) * 0.99)]


def withstand(bench, connections, seconds, to_the_end, again=False, **settings):
    service = bench.serve(**QUIET, **settings)
    path = service.standing_path(bench)
    for nth in range(20):
        service.call("POST", path, webhook(f"warm-{nth}"), key=None)
    descriptors, memory = service.descriptors(), service.figure("VmRSS")
    siege, told = besieged(service.port, path, connections, seconds, to_the_end)
    try:
        took = honest(service, path, siege, again)
    finally:
        if siege.is_alive():
            siege.kill()
        siege.join()
    longest = told.get(timeout=5)
    slowest = max(longest, key=longest.get)
    require(longest[slowest] <= CLOSED_WITHIN, f"{slowest} was kept for {longest[slowest]:.1f} s")
    until("descriptors back to what they were", lambda: service.descriptors() <= descriptors + 4, 20)
    grown = (service.figure("VmRSS") - memory) / 1024
    # What a connection took is given back to the allocator, which keeps some of it.
    require(grown < max(24, connections * 0.048), f"{grown:.0f} MB more are resident than before")
    return took, longest[slowest], grown


@proves("G12", small=240, full=2_000, faults=["HeadsUntimed", "BodiesUntimed"])
def slow_connections(bench, connections):
    """Silent and dripping connections are closed within 12 seconds, and honest webhooks do not notice."""
    seconds = 60 if connections >= 2_000 else 3
    took, longest, grown = withstand(bench, connections, seconds, True, SERVER__MAX_CONNECTIONS="4096")
    require(p99(took) <= (250 if connections >= 2_000 else 1_000), f"p99 of honest webhooks {p99(took):.0f} ms")
    return (f"{connections:,} at a time for {seconds} s, the longest kept {longest:.1f} s; {len(took):,} honest webhooks answered, "
            f"p99 {p99(took):.1f} ms; {grown:+.0f} MB after it")


@proves("G12", small=400, full=2_000, faults=["FirstComeOnly"])
def seats_for_the_honest(bench, connections):
    """More slow connections than there are places keep no honest webhook out."""
    full = connections >= 2_000
    took, _, _ = withstand(bench, connections, 60 if full else 6, False, SERVER__MAX_CONNECTIONS="1024" if full else "200")
    require(p99(took) <= (250 if full else 1_000), f"p99 of honest webhooks {p99(took):.0f} ms")
    return f"{connections:,} for {'1,024' if full else '200'} places: {len(took):,} honest webhooks answered, p99 {p99(took):.1f} ms"


@proves("E13", small=300, full=2_000, faults=["PlacesUnbounded"])
def few_open_files(bench, connections):
    """More slow connections than the process may have open files leave the database enough, and keep no honest webhook out that is sent again."""
    files, seconds = connections * 3 // 4, 60 if connections >= 2_000 else 6
    took, _, _ = withstand(bench, connections, seconds, False, again=True, wrap=[tool("prlimit", "util-linux"), f"--nofile={files}:{files}"])
    require(p99(took) <= 1_000, f"p99 of honest webhooks {p99(took):.0f} ms")
    return f"{connections:,} with {files:,} open files: {len(took):,} honest webhooks answered, p99 {p99(took):.1f} ms"


# Too many at once.


async def crowd(port, wanted, connections):
    """Sends all requests over so many connections at once. Of each: status, seconds it took, Retry-After."""
    per_connection = [wanted[nth::connections] for nth in range(connections)]
    opened = await asyncio.gather(*(asyncio.open_connection("127.0.0.1", port) for _ in range(connections)))
    found = {}

    async def one(reader, writer, own):
        began = time.monotonic()
        writer.write(b"".join(sent for _, sent in own))
        for name, _ in own:
            async with asyncio.timeout(30):
                said = await answer(reader)
            found[name] = (said.status, time.monotonic() - began, said.header("retry-after"))
        writer.close()

    results = await asyncio.gather(*(one(*pair, own) for pair, own in zip(opened, per_connection)), return_exceptions=True)
    for failure in (result for result in results if isinstance(result, Exception)):
        raise Broken(f"a connection was not answered: {failure!r}")
    return found


def judged(found, seconds):
    """Only a yes, or 503 with Retry-After, each within so long. The names of both."""
    for name, (status, took, retry_after) in found.items():
        require(status in (200, 201, 503), f"{name} was answered {status}")
        require(took <= seconds, f"{name} was answered {status} after {took:.1f} s")
        require(status != 503 or retry_after, f"{name}: 503 without Retry-After")
    taken = {name for name, (status, _, _) in found.items() if status != 503}
    return taken, found.keys() - taken


def again(service, path, refused):
    """The provider's five attempts, at once instead of every 30 seconds."""
    for _ in range(5):
        wanted = [(name, request(path, webhook(name))) for name in sorted(refused)]
        if not wanted:
            break
        _, refused = judged(asyncio.run(crowd(service.port, wanted, min(200, len(wanted)))), 30)
    require(not refused, f"{len(refused)} were refused five times")


@proves("G3", small=2_000, full=10_000, faults=["AcknowledgedUnkept"])
def burst(bench, webhooks):
    """10,000 webhooks within a second over 1,000 connections are all answered within 5 seconds, and none is lost."""
    service = bench.serve(**QUIET)
    path = service.standing_path(bench)
    names = [f"burst-{nth}" for nth in range(webhooks)]
    found = asyncio.run(crowd(service.port, [(name, request(path, webhook(name))) for name in names], webhooks // 10))
    taken, refused = judged(found, 5.0)
    again(service, path, refused)
    lost = set(names) - kept.ids(kept.copy(bench, service, "burst"))
    require(not lost, f"{len(lost)} are lost, such as {min(lost, default='')}")
    slowest, peak = max(took for _, took, _ in found.values()), service.figure("VmHWM") / 1024
    require(peak <= 256, f"{peak:.0f} MB at most")
    return f"{len(taken):,} taken, {len(refused):,} told to come back, the slowest answer after {slowest:.2f} s; 0 lost; {peak:.0f} MB at most"


def held_up(service, seconds):
    """Somebody else holds the database's lock for so long; the thread that lets go of it."""
    holder = sqlite3.connect(os.path.join(service.folder, "recoup.db"), isolation_level=None, check_same_thread=False)
    holder.execute("BEGIN IMMEDIATE")

    def let_go():
        holder.execute("ROLLBACK")
        holder.close()
    release = threading.Timer(seconds, let_go)
    release.start()
    return release


@proves("G3", small=900, full=900, faults=["NobodyTurnedAway"])
def flood(bench, connections):
    """While the database is held up, a flood of webhooks is turned away with 503 and Retry-After, and reads go on."""
    service = bench.serve(**QUIET)
    path = service.standing_path(bench)
    service.call("POST", path, webhook("before"), key=None)
    names = [f"flood-{nth}" for nth in range(connections)]
    release = held_up(service, 4.0)
    reads = []
    looks = threading.Thread(target=lambda: reads.extend(service.call("GET", "/v1/generations?limit=1", timeout=5)[0] for _ in range(20)))
    looks.start()
    found = asyncio.run(crowd(service.port, [(name, request(path, webhook(name))) for name in names], connections))
    release.join()
    looks.join()
    taken, refused = judged(found, 8.0)
    turned = [found[name][1] for name in refused]
    require(len(turned) >= connections // 4, f"only {len(turned)} of {connections} were turned away")
    require(sorted(turned)[len(turned) // 2] <= 3.0, "they were turned away late")
    require(reads == [200] * 20, f"reads were answered {set(reads)}")
    again(service, path, refused)
    lost = set(names) - kept.ids(kept.copy(bench, service, "flood"))
    require(not lost, f"{len(lost)} are lost")
    return f"{connections} at once on a database held for 4 s: {len(refused)} turned away after {max(turned):.1f} s at most, {len(taken)} taken, 0 lost"


@proves("", small=300, full=300, faults=["NobodyTurnedAway"])
def flood_of_calls(bench, connections):
    """A flood of API calls is turned away with 503 and Retry-After; callers that only wait take nobody's place, and webhooks go on."""
    service = bench.serve(**QUIET)
    path = service.standing_path(bench)
    own, _ = service.prepare()
    waiting = [socket.create_connection(("127.0.0.1", service.port), 5) for _ in range(100)]
    for connection in waiting:
        connection.sendall(request(f"/v1/generations/{own}?wait=60", b"", f"authorization: Bearer {KEY}", method="GET"))
    require(service.call("GET", "/v1/generations", timeout=5)[0] == 200, "with a hundred callers waiting a read is refused")
    wanted = [(f"call-{nth}", request("/v1/generations", f'{{"family":"kling/o3-video","generation_id":"call-{nth}"}}', f"authorization: Bearer {KEY}"))
              for nth in range(connections)]
    release = held_up(service, 4.0)
    found = asyncio.run(crowd(service.port, wanted, connections))
    release.join()
    taken, refused = judged(found, 8.0)
    turned = sorted(found[name][1] for name in refused)
    require(len(turned) >= connections // 2, f"only {len(turned)} of {connections} were turned away")
    require(turned[len(turned) // 2] <= 3.0, "they were turned away late")
    known = kept.ids(kept.copy(bench, service, "calls"))
    require(taken <= known and not refused & known, "what was kept is not what was answered")
    require(service.call("POST", path, webhook("afterwards"), key=None)[0] == 200, "a webhook is refused")
    for connection in waiting:
        connection.close()
    return f"{connections} at once on a database held for 4 s: {len(refused)} turned away after {turned[-1]:.1f} s at most, {len(taken)} taken; 100 waiting"


# Forged webhooks.


class Hall(http.server.ThreadingHTTPServer):
    """A server that keeps nobody waiting at the door: Python's own lets five in at a time."""
    request_queue_size = 512
    daemon_threads = True

    def handle_error(self, request, client_address):
        """Whoever was killed hears no answer: nothing to tell of."""


class Watcher:
    """An endpoint for events, and a provider that answers nothing useful: both count what reaches them."""

    def __init__(self):
        seen = self.seen = []

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_POST(self):
                self.rfile.read(int(self.headers.get("content-length", 0)))
                seen.append(("POST", self.path))
                self.send_response(200)
                self.send_header("content-length", "0")
                self.end_headers()

            def do_GET(self):
                seen.append(("GET", self.path))
                self.send_response(404)
                self.send_header("content-length", "0")
                self.end_headers()

            def log_message(self, *_):
                pass

        self.server = Hall(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def events(self):
        return sum(1 for method, _ in self.seen if method == "POST")


def tells(bench, url):
    """From its start on a service of this bench sends its events there."""
    secret = "whsec_" + base64.b64encode(b"a secret of the events, 32 bytes").decode()
    path = os.path.join(bench.folder, "config.toml")
    with open(path, "w") as file:
        file.write(f'[events]\nallow_private_addresses = true\n[[events.endpoints]]\nurl = "{url}"\nsecret = "{secret}"\n')
    os.chmod(path, 0o600)


def flipped(text, chance):
    """One bit of the decoded mac is another."""
    head, mac = text.rsplit(".", 1)
    raw = bytearray(base64.urlsafe_b64decode(mac + "="))
    bit = chance.randrange(len(raw) * 8)
    raw[bit // 8] ^= 1 << bit % 8
    return f"{head}.{base64.urlsafe_b64encode(raw).decode().rstrip('=')}"


def forgeries(standing, minted, other_secret, chance):
    """Twenty kinds of paths that are not quite one of ours, endlessly. `standing`, `minted`: tokens that are."""
    family, other = "kling/o3-video", "kling/v3-video"
    noise = lambda length: base64.urlsafe_b64encode(chance.randbytes(length)).decode().rstrip("=")
    either = lambda: chance.choice([standing, minted])
    mac = lambda text: text.rsplit(".", 1)[1]
    kinds = [
        lambda: f"/webhooks/{family}/any.{noise(32)}",
        lambda: f"/webhooks/{family}/{flipped(either(), chance)}",
        lambda: f"/webhooks/{other}/{either()}",
        lambda: f"/webhooks/{family}/gen_{chance.randbytes(16).hex()}.{mac(minted)}",
        lambda: f"/webhooks/{family}/{either()[:-chance.randrange(1, 20)]}",
        lambda: f"/webhooks/{family}/{either()}{noise(chance.randrange(1, 2_000))}",
        lambda: f"/webhooks/{family}/{either()}%{chance.choice(['00', '0a', '20', '2e', 'ff', 'c3%28'])}",
        lambda: f"/webhooks//{family}/{either()}",
        lambda: f"/webhooks/{family}//{either()}",
        lambda: f"/webhooks/{family}/v{chance.randrange(2, 9)}.{either()}",
        lambda: f"/webhooks/{family}/",
        lambda: f"/webhooks/{family}/any.{urllib.parse.quote('пароль' + noise(6))}",
        lambda: f"/webhooks/{family}/../{family}/{either()}",
        lambda: f"/webhooks/{family}/..%2f..%2f..%2fetc%2fpasswd",
        lambda: f"/webhooks/{family}/{either().swapcase()}",
        lambda: f"/webhooks/{family}/{either()}=",
        lambda: f"/webhooks/{family}/{other_secret}",
        lambda: f"/webhooks/{family}/{chance.choice(['any', 'any.', '.', minted.rsplit('.', 1)[0]])}",
        lambda: f"/webhooks/{family}/{minted.rsplit('.', 1)[0]}.{mac(standing)}",
        lambda: f"/webhooks/{family}?token={either()}",
        lambda: f"/webhooks/{family}/{either()}/",
        lambda: f"/webhooks/{family.upper()}/{either()}",
        lambda: f"/webhook/{family}/{either()}",
    ]
    nth = 0
    while True:
        body = webhook(f"forged-{nth}", chance.choice(["completed", "failed"]))
        more = [f"cookie: {'x' * 7_000}"] if nth % 997 == 0 else [f"authorization: Bearer {PROVIDER_KEY}"] if nth % 7 == 0 else []
        yield request(kinds[nth % len(kinds)](), body, *more)
        nth += 1


# What differs between two answers to the same: when, and which.
OWN = re.compile(rb"date: [^\r]*|x-request-id: [0-9a-f]{32}|\"request_id\":\"[0-9a-f]{32}\"")


def pour(port, requests, times, batch=64):
    """Sends so many, pipelined; every answer without what is its own. What a closed connection left unanswered is sent again."""
    answers, connection, rest, unanswered = {}, None, b"", []
    done = 0
    while done < times:
        if connection is None:
            connection, rest = socket.create_connection(("127.0.0.1", port), 10), b""
        unanswered += [next(requests) for _ in range(min(batch, times - done) - len(unanswered))]
        connection.sendall(b"".join(unanswered))
        while unanswered:
            while True:
                end = rest.find(b"\r\n\r\n")
                length = end >= 0 and re.search(rb"(?i)content-length: (\d+)", rest[:end])
                whole = end + 4 + int(length.group(1)) if length else None
                if whole and len(rest) >= whole:
                    break
                more = connection.recv(1 << 18)
                if not more:
                    break
                rest += more
            if not (whole and len(rest) >= whole):
                connection.close()
                connection = None
                break
            plain = OWN.sub(b"", rest[:whole])
            if plain not in answers:
                answers[plain] = unanswered[0]
            rest = rest[whole:]
            unanswered.pop(0)
            done += 1
    return answers


@proves("G13", small=10_000, full=1_000_000, faults=["ForgedAccepted"])
def forged(bench, times):
    """Forged webhooks change nothing: no row, no event, no status read, one identical answer."""
    watcher = Watcher()
    tells(bench, f"{watcher.url}/events")
    service = bench.serve(provider=watcher.url, LOG__LEVEL="off")
    minted = [service.prepare() for _ in range(20)]
    for nth, (_, path) in enumerate(minted[:10]):
        require(service.call("POST", path, webhook(f"true-{nth}"), key=None)[0] == 200, "an authentic webhook is refused")
    until("the events of the authentic ones are sent", lambda: watcher.events() >= 10)
    standing = service.standing_path(bench).rsplit("/", 1)[1]
    environment = {"PATH": os.environ["PATH"], "RECOUP_WEBHOOK__SECRETS": "another secret, which is long enough too",
                   "RECOUP_SERVER__PUBLIC_URL": "https://recoup.example"}
    told = subprocess.run([bench.binary, "callback-url", "kling/o3-video"], env=environment, check=True, capture_output=True, text=True).stdout
    before, seen = kept.contents(bench, service, "before"), list(watcher.seen)
    requests = forgeries(standing, minted[15][1].rsplit("/", 1)[1], told.split()[-1].rsplit("/", 1)[1], bench.chance)
    began = time.monotonic()
    answers = pour(service.port, requests, times)
    took = time.monotonic() - began
    if len(answers) != 1:
        (one, _), (other, sent) = list(answers.items())[:2]
        raise Broken(f"{len(answers)} different answers, such as {other[:200]!r} to {sent[:120]!r}; others get {one[:200]!r}")
    require(next(iter(answers)).startswith(b"HTTP/1.1 404"), f"they are answered {next(iter(answers))[:40]!r}")
    after = kept.contents(bench, service, "after")
    require(before == after, f"tables changed: {[name for name in after if after[name] != before.get(name)]}")
    require(watcher.seen == seen, f"they caused {watcher.seen[len(seen):][:3]}")
    return f"{times:,} of 23 kinds, {times / took:,.0f} a second: one answer, {len(after)} tables unchanged, 0 reads, 0 events"


# Clients that hang up.


@proves("G26", small=600, full=10_000, faults=["LeftBehind"])
def hang_ups(bench, times):
    """Clients that hang up at any byte leave no half row, no descriptor and no memory behind."""
    service = bench.serve(**QUIET)
    path = service.standing_path(bench)
    for nth in range(100):
        service.call("POST", path, webhook(f"warm-{nth}"), key=None)
    descriptors, memory, whole, cut = service.descriptors(), service.figure("VmRSS"), set(), set()
    for nth in range(times):
        name = f"hang-up-{nth}"
        sent = request(path, webhook(name))
        offset = bench.chance.choice([bench.chance.randrange(len(sent)), len(sent)])
        connection = socket.create_connection(("127.0.0.1", service.port), 5)
        connection.sendall(sent[:offset])
        if bench.chance.random() < 0.5:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        connection.close()
        (whole if offset == len(sent) else cut).add(name)
    require(service.call("POST", path, webhook("afterwards"), key=None)[0] == 200, "a webhook after them is not taken")
    until("descriptors back to what they were", lambda: service.descriptors() <= descriptors + 2, 20)
    database = kept.copy(bench, service, "hang-ups")
    halves, known = kept.halves(database), kept.ids(database)
    require(not halves, f"half rows: {halves}")
    require(not known & cut, f"{len(known & cut)} were kept though they never came whole")
    grown = (service.figure("VmRSS") - memory) / 1024
    require(grown <= 24, f"{grown:.0f} MB more are resident than before")
    return f"{times:,} hang-ups at random bytes: {len(known & whole):,} of {len(whole):,} whole ones kept, 0 of {len(cut):,} cut ones, 0 halves; {grown:+.0f} MB"


@proves("G12", small=16, full=200, faults=["BodiesUnbounded"])
def long_bodies(bench, connections):
    """A body longer than allowed is refused with 413 while it arrives, announced or not, and is never held in memory."""
    service = bench.serve(**QUIET)
    path = service.standing_path(bench)
    memory = service.figure("VmRSS")
    piece = b"8000\r\n" + b"x" * 0x8000 + b"\r\n"

    async def one(nth):
        reader, writer = await asyncio.open_connection("127.0.0.1", service.port)
        head = "transfer-encoding: chunked" if nth % 2 else f"content-length: {1 << 30}"
        writer.write(f"POST {path} HTTP/1.1\r\nhost: proof\r\n{head}\r\n\r\n".encode())
        with contextlib.suppress(OSError):
            for _ in range(256):
                writer.write(piece)
                await writer.drain()
        async with asyncio.timeout(15):
            status = (await answer(reader)).status
        writer.transport.abort()
        return status

    async def all_of_them():
        return await asyncio.gather(*(one(nth) for nth in range(connections)), return_exceptions=True)

    found = asyncio.run(all_of_them())
    require(set(found) == {413}, f"they are answered {set(map(repr, found))}")
    grown = (service.figure("VmHWM") - memory) / 1024
    require(grown <= 64, f"{grown:.0f} MB more were resident")
    return f"{connections} bodies of 8 MB and more, half of them unannounced: 413 each, {grown:+.0f} MB at most"


@proves("G12", small=48, full=2_000, faults=["HeadsUnbounded"])
def long_heads(bench, connections):
    """A head of more than 64 headers or 16 KB is refused with 431, or the connection broken off, before it is held in memory."""
    service = bench.serve(**QUIET)
    path = service.standing_path(bench)
    memory = service.figure("VmRSS")
    heads = [
        lambda: [f"POST {path} HTTP/1.1\r\nhost: proof\r\n".encode(), b"x: y\r\n" * 70, b"content-length: 2\r\n\r\n{}"],
        lambda: [f"POST {path} HTTP/1.1\r\nhost: proof\r\nx: ".encode(), *[b"x" * 4_096] * 8, b"\r\ncontent-length: 2\r\n\r\n{}"],
        lambda: [f"POST /{'x' * 20_000} HTTP/1.1\r\nhost: proof\r\ncontent-length: 2\r\n\r\n{{}}".encode()],
        lambda: [f"POST {path} HTTP/1.1\r\nhost: proof\r\nx: ".encode(), *[b"x" * 65_536] * 64],
    ]

    async def one(nth):
        reader, writer = await asyncio.open_connection("127.0.0.1", service.port)
        with contextlib.suppress(OSError):
            for part in heads[nth % len(heads)]():
                writer.write(part)
                await writer.drain()
        try:
            async with asyncio.timeout(15):
                status = (await answer(reader)).status
        except (OSError, asyncio.IncompleteReadError):
            status = "broken off"
        writer.transport.abort()
        return status

    async def all_of_them():
        gate = asyncio.Semaphore(200)

        async def admitted(nth):
            async with gate:
                return await one(nth)
        return await asyncio.gather(*(admitted(nth) for nth in range(connections)), return_exceptions=True)

    found = asyncio.run(all_of_them())
    require(set(found) <= {431, "broken off"} and 431 in found, f"they are answered {set(map(repr, found))}")
    grown = (service.figure("VmHWM") - memory) / 1024
    require(grown <= 32, f"{grown:.0f} MB more were resident")
    return f"{connections:,} heads of 4 kinds: {found.count(431):,} answered 431, {found.count('broken off'):,} broken off; {grown:+.0f} MB at most"
