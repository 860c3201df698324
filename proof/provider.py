"""A hostile provider: every answer that must be feared, to purchases and to status reads, early, whole and broken off."""
import concurrent.futures, contextlib, gzip, json, os, re, socket, ssl, struct, subprocess, threading

from common import PROVIDER_KEY, free_port, proves, require, tool

FAMILY = "kling/o3-video"
MOMENTS = ["early", "whole", "cut"]
ENDLESS_BYTES = 96 << 20
TIMEOUT_S = 1.0
# What makes callers and reads wait for it.
UNCONFIRMED = (504, "unconfirmed")


def http(status, body=b"", *headers, length=True):
    body = body if isinstance(body, bytes) else body.encode()
    lines = [f"HTTP/1.1 {status} Whatever", "content-type: application/json", *headers]
    return "\r\n".join(lines + [f"content-length: {len(body)}"] * length).encode() + b"\r\n\r\n" + body


def sold(own_id, **more):
    return json.dumps({"generation_id": own_id, "status": "completed", "video_url": "https://cdn.example.net/v.mp4", "price": "0.1500"} | more)


class Case:
    """One misbehaviour. `status`: what its head says, if it can be read. `sells`: whether its body may be taken for a sale; `settles`: for
    an outcome of what was asked about; None for either."""

    def __init__(self, name, raw, status=None, sells=False, settles=False, endless=None):
        self.name, self.raw, self.status, self.sells, self.settles, self.endless = name, raw, status, sells, settles, endless

    def purchase(self, moment):
        """What the caller may be told, and what the generation may be then (contract section 6)."""
        unclear = {UNCONFIRMED}
        if self.status is None:
            return unclear
        if 200 <= self.status < 300:
            # An id that another purchase has already says nothing about this one.
            told = {True: {(self.status, "pending")}, False: unclear, None: unclear | {(self.status, "pending"), (self.status, "unconfirmed")}}[self.sells]
        elif 400 <= self.status < 500 and self.status != 408:
            told = {(self.status, "rejected")}
        elif 500 <= self.status < 600:
            told = {(self.status, "unconfirmed")}
        else:
            told = unclear
        return told if moment == "whole" else told | unclear


def cases(canary):
    """All of them, for an id and the address of somebody who must never hear of us."""
    lure = [f"location: {canary}/stolen", f"alt-svc: h2=\"{canary[7:]}\"", f"refresh: 0; url={canary}", "set-cookie: a=b", f"link: <{canary}>; rel=preload"]
    for status in [204, 205, 304]:
        yield Case(f"{status}", lambda _, status=status: http(status, length=False), status)
    for status in [300, 301, 302, 303, 305, 307, 308]:
        yield Case(f"{status} elsewhere", lambda own, status=status: http(status, sold(own), *lure), status)
    yield Case("206", lambda own: http(206, sold(own)), 206, None)
    refused = [400, 401, 402, 403, 404, 405, 408, 409, 410, 413, 415, 418, 422, 425, 429, 431, 451]
    broken = [500, 501, 502, 503, 504, 505, 507, 508, 511, 520, 522, 524, 529, 599, 600, 999]
    for status in refused + broken:
        yield Case(f"{status}", lambda own, status=status: http(status, sold(own), *lure[1:]), status)
    for after in ["0", "7", "-1", "99999999999999999999", "1e9", "soon", "Fri, 31 Dec 9999 23:59:59 GMT"]:
        yield Case(f"429 retry-after {after}", lambda _, after=after: http(429, "{}", f"retry-after: {after}"), 429)
    bodies = {
        "HTML": lambda _: "<html><body>502 Bad Gateway</body></html>", "empty": lambda _: "", "blank": lambda _: " \r\n\t ", "null": lambda _: "null",
        "a list": lambda own: f"[{sold(own)}]", "a text": lambda own: json.dumps(sold(own)), "a number": lambda _: "7", "true": lambda _: "true",
        "id is a number": lambda _: sold(7), "id is an object": lambda own: sold({"id": own}), "id is null": lambda _: sold(None),
        "no id": lambda _: '{"status":"completed","video_url":"https://x/y.mp4"}', "empty id": lambda _: sold(""), "id too long": lambda _: sold("x" * 129),
        "id is a path": lambda _: sold("../../balance"), "id breaks lines": lambda _: sold("a\r\nx: y"), "id with NUL": lambda _: sold("a\0b"),
        "status is an object": lambda own: sold(own, status={"a": 1}), "UTF-16": lambda own: sold(own).encode("utf-16"),
        "lone surrogate": lambda _: '{"generation_id":"\\ud800","status":"completed"}', "invalid UTF-8": lambda _: b'{"generation_id":"\xff\xfe","status":"completed"}',
        "nested lists": lambda _: "[" * 100_000, "nested objects": lambda _: '{"generation_id":' * 20_000, "half a document": lambda own: sold(own)[:-9],
        "single quotes": lambda own: sold(own).replace('"', "'"), "NaN": lambda own: sold(own).replace('"0.1500"', "NaN"),
        "gzip unasked": lambda own: gzip.compress(sold(own).encode()), "only NULs": lambda _: b"\0" * 5_000,
    }
    for name, body in bodies.items():
        yield Case(f"200 {name}", lambda own, body=body: http(200, body(own)), 200, None if name in ("status is an object", "id is a number") else False)
    odd = {
        "foreign id": lambda _: sold("somebody-elses"), "two documents": lambda own: sold(own) + sold("another"), "a mark in front": lambda own: "\ufeff" + sold(own),
        "the key twice": lambda own: sold(own)[:-1] + ',"generation_id":"somebody-elses"}', "absurd price": lambda own: sold(own, price="-1e400"),
        "unknown word": lambda own: sold(own, status="sleeping"), "no result": lambda own: sold(own, video_url=None), "long text": lambda own: sold(own, message="x" * 200_000),
    }
    for name, body in odd.items():
        settles = False if name in ("foreign id", "unknown word", "no result") else None
        yield Case(f"200 {name}", lambda own, body=body: http(200, body(own)), 200, None, settles)
    bomb = gzip.compress(b"[" * (64 << 20))
    wire = {
        "gzip bomb": (http(200, bomb, "content-encoding: gzip"), 200), "longer than said": (http(200, "{}") + b"x" * 5_000, 200),
        "shorter than said, and waits": (b"HTTP/1.1 200 OK\r\ncontent-length: 900\r\n\r\n{}", 200),
        "negative length": (b"HTTP/1.1 200 OK\r\ncontent-length: -1\r\n\r\n{}", None), "two lengths": (b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\ncontent-length: 3\r\n\r\n{} ", None),
        "bad chunks": (b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n{}\r\n0\r\n\r\n", 200),
        "huge chunk": (b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nffffffffffffffff\r\n{}", 200), "no HTTP": (b"SSH-2.0-OpenSSH_9.9\r\n", None),
        "HTTP/0.9": (b"{}", None), "HTTP/2": (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", None), "TLS": (bytes.fromhex("15030300020228"), None), "status 099": (http("099", "{}"), None),
        "status in words": (http("two hundred", "{}"), None), "100 and waits": (b"HTTP/1.1 100 Continue\r\n\r\n", None), "upgrade": (b"HTTP/1.1 101 X\r\nconnection: upgrade\r\nupgrade: x\r\n\r\n", 101),
        "ten thousand headers": (http(200, "{}", *[f"x-{nth}: y" for nth in range(10_000)]), None), "a long header": (http(200, "{}", "x: " + "y" * (1 << 20)), None),
        "nothing, and waits": (b"", None), "spaces before colons": (b"HTTP/1.1 200 OK\r\ncontent-length : 2\r\n\r\n{}", None),
    }
    for name, (raw, status) in wire.items():
        yield Case(name, lambda _, raw=raw: raw, status)
    yield Case("endless body", lambda _: b"HTTP/1.1 200 OK\r\n\r\n", 200, endless=b"x" * (1 << 16))
    yield Case("endless chunks", lambda _: b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n", 200, endless=b"10000\r\n" + b" " * (1 << 16) + b"\r\n")
    yield Case("endless refusal", lambda _: b"HTTP/1.1 400 X\r\n\r\n", 400, endless=b"x" * (1 << 16))
    yield Case("endless headers", lambda _: b"HTTP/1.1 200 OK\r\n", None, endless=b"x: y\r\n" * 10_000)
    yield Case("endless nesting", lambda _: b"HTTP/1.1 200 OK\r\n\r\n", 200, endless=b"[" * (1 << 16))


class Listener:
    """Accepts connections, each on a thread of its own."""

    def __init__(self, speak, context=None):
        self.socket = socket.create_server(("127.0.0.1", 0), backlog=256)
        self.port = self.socket.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"
        self.speak, self.context = speak, context
        threading.Thread(target=self.accept, daemon=True).start()

    def accept(self):
        while True:
            try:
                connection, _ = self.socket.accept()
            except OSError:
                return
            threading.Thread(target=self.converse, args=(connection,), daemon=True).start()

    def converse(self, connection):
        with contextlib.suppress(OSError), connection:
            connection.settimeout(10)
            if self.context:
                connection = self.context.wrap_socket(connection, server_side=True)
            self.speak(connection)

    def close(self):
        self.socket.close()


class Hostile:
    """The provider. What it is asked names the case and the moment; `seen` counts what it was asked."""

    def __init__(self):
        self.lured, self.seen, self.lock, self.strange = [], {}, threading.Lock(), []
        self.canary = Listener(self.lure)
        self.cases = list(cases(self.canary.url))
        self.listener = Listener(self.speak)
        self.url = self.listener.url

    def lure(self, connection):
        self.lured.append(connection.recv(4096).decode(errors="replace"))

    def speak(self, connection):
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        while self.request(connection):
            pass

    def request(self, connection):
        """One request, answered as its case wants it; whether another may follow."""
        raw = b""
        while b"\r\n\r\n" not in raw:
            more = connection.recv(65_536)
            if not more:
                return False
            raw += more
        head, body = raw.split(b"\r\n\r\n", 1)
        text = head.decode()
        case = re.search(r"(case-(\d+)-(\w+)-\w+)", text)
        if case is None:
            # A list, asked for a purchase whose answer was lost.
            connection.sendall(http(404, json.dumps({"detail": "Not Found"})))
            return True
        own, nth, moment = case.groups()
        with self.lock:
            self.seen[own] = self.seen.get(own, 0) + 1
            if f"authorization: Bearer {PROVIDER_KEY}" not in text or "cookie:" in text.lower():
                self.strange.append(text)
        if nth == "999":
            connection.sendall(http(200, json.dumps({"generation_id": own, "status": "processing"})))
            return True
        length = int((re.search(r"(?i)content-length: (\d+)", text) or [0, 0])[1])
        while moment != "early" and len(body) < length:
            body += connection.recv(65_536)
        return self.answer(connection, self.cases[int(nth)], own, moment)

    def answer(self, connection, case, own, moment):
        raw = case.raw(own)
        if moment == "cut" and not case.endless:
            connection.sendall(raw[:int(own.rsplit("-", 1)[1], 16) % max(len(raw), 1)])
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            return False
        connection.sendall(raw)
        sent = 0
        while case.endless and sent < ENDLESS_BYTES:
            connection.sendall(case.endless)
            sent += len(case.endless)
        # What was not read of an early answer's request would be taken for the next one.
        return moment != "early"

    def innocent(self, service, memory):
        """What must hold after every case."""
        require(not self.lured, f"somebody else heard of us: {self.lured[:1]}")
        require(not self.strange, f"a request is not as it should be: {self.strange[:1]}")
        require(service.alive(), f"the service ended: {service.words()[-600:]}")
        grown = (service.figure("VmHWM") - memory) / 1024
        require(grown <= 48, f"{grown:.0f} MB more were resident")
        return grown


def pick(bench, provider, amount):
    """So many of all cases and moments, each case as often as the others."""
    every = [(nth, moment) for nth in range(len(provider.cases)) for moment in MOMENTS]
    bench.chance.shuffle(every)
    by_case = {}
    for nth, moment in every:
        by_case.setdefault(nth, []).append((nth, moment))
    rounds = [queue[turn] for turn in range(len(MOMENTS)) for queue in by_case.values()]
    return rounds[:amount]


def hostile_service(bench, provider, name, **settings):
    service = bench.serve(bench.subfolder(name), provider=provider.url, LOG__LEVEL="warn", PROVIDER__REQUEST_TIMEOUT=f"{int(TIMEOUT_S * 1e3)}ms",
                          PROVIDER__STATUS_CHECKS_PER_MINUTE="6000", **settings)
    return service, service.figure("VmHWM")


def quiet(service):
    words = service.words()
    require("panicked" not in words, f"it panicked: {words[words.find('panicked') - 200:][:600]}")
    require(PROVIDER_KEY not in words, "the key stands in the log")


@proves("G14", small=120, full=1_000, faults=["RedirectsFollowed", "BoughtTwice", "GarbageIsRefused", "AnswersUnbounded"])
def purchases(bench, amount):
    """Whatever the provider answers to a purchase: it is sent once, told as the contract says, never believed too easily."""
    provider = Hostile()
    service, memory = hostile_service(bench, provider, "purchases")
    chosen = pick(bench, provider, amount)
    marks = [bench.chance.randbytes(4).hex() for _ in chosen]

    def buy(nth, moment, mark):
        own = f"case-{nth}-{moment}-{mark}"
        # Longer than what a socket takes at once, so that an early answer comes before it is sent.
        body = json.dumps({"prompt": own, "duration": "5", "image": "x" * (3_000_000 if moment == "early" and nth % 16 == 0 else 100)})
        status, said, headers = service.call("POST", f"/gateway/v1/{FAMILY}/generate", body, headers={"content-type": f"application/json; own={own}"})
        generation = headers.get("recoup-generation")
        require(generation, f"{own} ({provider.cases[nth].name}): {status} without Recoup-Generation: {said}")
        kept = service.call("GET", f"/v1/generations/{generation}")[1]
        allowed = provider.cases[nth].purchase(moment)
        found = (status, kept["status"])
        require(found in allowed, f"{provider.cases[nth].name}, {moment}: told and kept {found}, allowed are {sorted(allowed)}")
        require(PROVIDER_KEY not in json.dumps([str(said), kept]), "the key comes back to the caller")
        require(provider.seen[own] == 1, f"{own} was sent {provider.seen[own]} times")
        provider.innocent(service, memory)

    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        for bought in [pool.submit(buy, nth, moment, mark) for (nth, moment), mark in zip(chosen, marks)]:
            try:
                bought.result()
            except BaseException:
                pool.shutdown(wait=False, cancel_futures=True)
                raise
    quiet(service)
    sent = {own for own in provider.seen}
    require(len(sent) == len(chosen), f"{len(chosen) - len(sent)} purchases never left")
    require(set(provider.seen.values()) == {1}, "a purchase was sent twice")
    grown = provider.innocent(service, memory)
    return f"{len(provider.cases)} misbehaviours, {len(chosen)} purchases: each sent once, all as the contract says; {grown:+.0f} MB at most"


@proves("G14", small=110, full=1_000, faults=["KeyGoesAlong", "AnyIdTaken"])
def reads(bench, amount):
    """Whatever the provider answers to a status read: no outcome is made up, the key goes nowhere else."""
    provider = Hostile()
    # Only we ask: what it asks again by itself would open the breaker, as it should.
    service, memory = hostile_service(bench, provider, "reads", RECONCILE__ENABLED="false")
    starts, grown = 1, 0

    def register(own):
        made = service.call("POST", "/v1/generations", {"generation_id": own, "family": FAMILY})
        require(made[0] == 201, f"cannot register: {made}")

    def look(own):
        return service.call("POST", f"/v1/generations/{own}/checks", timeout=20)

    # Those that ask for rest come last: each of them needs a service that has not been asked yet.
    for nth, moment in sorted(pick(bench, provider, amount), key=lambda chosen: provider.cases[chosen[0]].status in (401, 403, 429)):
        own, case = f"case-{nth}-{moment}-{bench.chance.randbytes(4).hex()}", provider.cases[nth]
        register(own)
        status, said, _ = look(own)
        require(status == 200, f"{case.name}, {moment}: the check is answered {status} {said}")
        kept, answer = said["generation"]["status"], said["check"]["answer"]
        if case.settles is None:
            require(kept in ("pending", "processing", "completed"), f"{case.name}, {moment}: {kept}")
        else:
            require(kept in ("pending", "processing"), f"{case.name}, {moment}: it is {kept} now")
            wanted = {404: {"not_found"}, 401: {"paused"}, 403: {"paused"}, 429: {"paused"}}.get(case.status, {"nothing"})
            # Our own id, and a word that ends nothing.
            wanted |= {"known"} if case.sells is None and case.name != "200 foreign id" else set()
            require(answer in wanted | ({"nothing"} if moment != "whole" else set()), f"{case.name}, {moment}: taken for {answer!r}")
        grown = max(grown, provider.innocent(service, memory))
        if answer == "paused":
            quiet(service)
            service.kill()
            service, memory = hostile_service(bench, provider, f"reads-{starts}", RECONCILE__ENABLED="false")
            starts += 1
        else:
            # A good answer: else the breaker would open, as it should.
            good = f"case-999-whole-{bench.chance.randbytes(4).hex()}"
            register(good)
            require(look(good)[1]["check"]["answer"] == "known", "a good answer is not understood afterwards")
    quiet(service)
    return f"{len(provider.cases)} misbehaviours, {amount if amount < 1_000 else len(provider.cases) * 3} reads: no outcome made up, nobody else asked; {grown:+.0f} MB at most"


def certificates(folder):
    """Self-made ones: expired, for another host, and for ours but by nobody we trust."""
    made = {}
    for name, days, host in [("expired", -1, "127.0.0.1"), ("another host", 30, "203.0.113.9"), ("unknown issuer", 30, "127.0.0.1")]:
        path = os.path.join(folder, name.replace(" ", "-"))
        openssl = [tool("openssl"), "req", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-keyout", path + ".key", "-subj", "/CN=proof"]
        subprocess.run([*openssl, "-out", path + ".csr"], check=True, capture_output=True)
        with open(path + ".ext", "w") as file:
            file.write(f"subjectAltName=IP:{host}")
        subprocess.run([tool("openssl"), "x509", "-req", "-in", path + ".csr", "-signkey", path + ".key", "-extfile", path + ".ext", "-days", str(days),
                        "-out", path + ".pem"], check=True, capture_output=True)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(path + ".pem", path + ".key")
        made[name] = context
    return made


@proves("G14", small=1, full=5, faults=["AnyCertificate"])
def unreachable(bench, rounds):
    """A provider behind a wrong certificate, a dead name or a closed port: nothing is sent, and the caller is told so."""
    heard, listeners, found = [], [], {}

    def speak(connection):
        heard.append(connection.recv(4096))
        connection.sendall(http(201, sold("bought")))

    places = {"no such name": "http://nothing.invalid", "closed port": f"http://127.0.0.1:{free_port()}"}
    for name, context in certificates(bench.folder).items():
        listeners.append(Listener(speak, context))
        places[name] = f"https://127.0.0.1:{listeners[-1].port}"
    for name, url in places.items():
        service = bench.serve(bench.subfolder(name.replace(" ", "-")), provider=url, SERVER__PUBLIC_URL="", LOG__LEVEL="warn")
        for _ in range(rounds):
            status, said, headers = service.call("POST", f"/gateway/v1/{FAMILY}/generate", {"prompt": "x", "duration": "5"})
            kept = service.call("GET", f"/v1/generations/{headers.get('recoup-generation')}")[1]
            require((status, kept.get("status")) == (502, "rejected"), f"{name}: told {status} {said}, kept {kept.get('status')}")
            found[name] = found.get(name, 0) + 1
        quiet(service)
        service.kill()
    require(not heard, f"something was sent: {heard[:1]}")
    return f"{', '.join(found)}: 502 each time, rejected, 0 bytes sent"
