"""Who may do what: every route against every scope, sessions, guessed keys, and that no secret leaves by any way out."""
import base64, contextlib, hashlib, http.client, http.server, json, os, re, signal, sqlite3, subprocess, threading, time, urllib.parse

from common import KEY, Broken, call, free_port, proves, require, until, webhook

SCOPES = ["read", "submit", "operate"]
KEYS = {scope: f"the key of the proofs that may only {scope}" for scope in SCOPES}
ID = "gen_0199d4c2b7a07f3e9b1c2a3d4e5f6071"
UNKNOWN = {"id": ID, "family": "kling/o3-video", "generation_id": "nobody-knows-it", "code": "TIMEOUT", "token": "any.x", "path": "x", "file": "x"}

# Contract sections 5, 6, 8 and 10: what the document does not tell, and all of it where the binary has no document yet.
ROUTES = [(method, path, scope) for scope, lines in {
    "read": """GET /v1/generations|GET /v1/generations/{id}|GET /v1/generations/{id}/timeline|GET /v1/generations/{id}/diagnosis
        GET /v1/generations/{id}/evidence|GET /v1/deliveries|GET /v1/deliveries/{id}|GET /v1/error-codes|GET /v1/error-codes/{code}
        GET /v1/models|GET /v1/credits|GET /v1/stats|GET /v1/events|GET /v1/events/{id}|GET /v1/events/stream|GET /metrics
        GET /gateway/v1/{family}/generations/{generation_id}""",
    "submit": "POST /v1/generations|PATCH /v1/generations/{id}|POST /gateway/v1/{family}/generate",
    "operate": """POST /v1/generations/{id}/checks|POST /v1/generations/{id}/refunds|POST /v1/deliveries/{id}/replays
        POST /v1/events/{id}/redeliveries|POST /v1/events/redeliveries""",
    "any": "GET /gateway/v1/no-such-thing|POST /gateway/anything",
}.items() for line in lines.split("\n") for route in line.split("|") for method, path in [route.split()]]
PAGES = ["/", "/trends", "/generations", "/deliveries", "/events", "/catalogue", "/setup", "/live", "/export/generations.csv",
         f"/generations/{ID}", f"/generations/{ID}/evidence.md", "/deliveries/dlv_x", "/events/evt_x"]
ACTIONS = [f"/generations/{ID}/check", f"/generations/{ID}/refund", f"/generations/{ID}/note", "/deliveries/dlv_x/replay",
           "/events/redeliver", "/events/evt_x/redeliver"]


def named_keys(folder, keys=None, more=""):
    """A file with one key for each scope; the environment has the one that may do everything."""
    named = "".join(f'[[api.keys]]\nname = "{scope}"\nsecret = "{secret}"\nscopes = ["{scope}"]\n' for scope, secret in (keys or KEYS).items())
    path = os.path.join(folder, "config.toml")
    with open(path, "w") as file:
        file.write(named + more)
    os.chmod(path, 0o600)


def routes(url):
    """Method, path and scope of every route: of the document where there is one, and of the contract."""
    found = {(method, path): scope for method, path, scope in ROUTES}
    status, document, _ = call(url, "GET", "/openapi.json", key=KEY)
    if status == 200 and isinstance(document, dict):
        for path, operations in document["paths"].items():
            for method in operations.keys() & {"get", "post", "patch", "put", "delete"}:
                operation = operations[method]
                needed = [scope for way in operation.get("security", document.get("security", [])) for scopes in way.values() for scope in scopes]
                if needed:
                    known = found.get((method.upper(), path))
                    require(known in (None, needed[0]), f"{method} {path} needs {needed}, the contract says {known}")
                    found[method.upper(), path] = needed[0]
    return sorted((method, path, scope) for (method, path), scope in found.items())


def filled(path):
    return re.sub(r"\{\*?(\w+)\}", lambda match: UNKNOWN.get(match[1], "x"), path)


def ask(url, method, path, headers, body=None):
    """Status and code of the problem; a stream is not waited for."""
    where = urllib.parse.urlsplit(url)
    connection = http.client.HTTPConnection(where.hostname, where.port, timeout=20)
    try:
        connection.request(method, path, body, {"content-type": "application/json"} | headers)
        answer = connection.getresponse()
        problem = answer.headers.get_content_type() == "application/problem+json"
        return answer.status, json.loads(answer.read())["code"] if problem else "", answer.headers
    finally:
        connection.close()


class Strangers:
    """Somebody from another address each time, as a proxy of ours tells it: guesses are counted for each."""

    def __init__(self):
        self.nth = 0

    def headers(self, key=None):
        self.nth += 1
        far = f"203.{self.nth >> 16 & 255}.{self.nth >> 8 & 255}.{self.nth & 255}"
        return {"x-forwarded-for": far} | ({"authorization": f"Bearer {key}"} if key else {})


def log_in(url, key, headers=None):
    """The cookie, or None; and the whole answer."""
    where = urllib.parse.urlsplit(url)
    connection = http.client.HTTPConnection(where.hostname, where.port, timeout=20)
    with contextlib.closing(connection):
        body = urllib.parse.urlencode({"key": key})
        connection.request("POST", "/login", body, {"content-type": "application/x-www-form-urlencoded", "origin": url} | (headers or {}))
        answer = connection.getresponse()
        answer.read()
    cookie = answer.headers.get("set-cookie")
    return cookie and cookie.split(";")[0], answer


def own(url, cookie=None):
    """Headers as the page's own forms send them."""
    return {"origin": url, "sec-fetch-site": "same-origin", "content-type": "application/x-www-form-urlencoded"} | ({"cookie": cookie} if cookie else {})


def kept(folder):
    """A hash of every row of every table, but for what keeps time."""
    with contextlib.closing(sqlite3.connect(f"file:{folder}/recoup.db?mode=ro", uri=True)) as database:
        names = [name for name, in database.execute("SELECT name FROM sqlite_master WHERE type = 'table' ORDER BY name")]
        rows = {name: database.execute(f"SELECT * FROM {name}").fetchall() for name in names if name != "heartbeat"}
    return hashlib.sha256(repr(rows).encode()).hexdigest()


@proves("G11", small=1, full=20, faults=["ScopeIgnored", "KeyEchoed"])
def matrix(bench, rounds):
    """Every route asks for exactly the scope of the contract, and a refused call changes nothing."""
    folder = bench.subfolder("matrix")
    named_keys(folder)
    service = bench.serve(folder, WEBHOOK__TRUSTED_PROXIES="127.0.0.0/8")
    service.prepare()
    table, strangers, tried = routes(service.url), Strangers(), 0
    wrong = ["x", KEY[:-1], KEY + "x", KEY.upper(), KEYS["read"][:-1], "Bearer " + KEY]
    cookies = {scope: log_in(service.url, KEYS["read"] if scope == "read" else KEY)[0] for scope in ("read", "all")}
    for _ in range(rounds):
        before = kept(folder)
        for method, path, scope in table:
            body = None if method == "GET" else "{}"
            refused = [({}, 401, "UNAUTHORIZED")] + [(strangers.headers(bench.chance.choice(wrong)), 401, "UNAUTHORIZED")]
            refused += [({"cookie": cookie}, 401, "UNAUTHORIZED") for cookie in cookies.values()]
            refused += [(strangers.headers(KEYS[other]), 403, "FORBIDDEN") for other in SCOPES if scope not in (other, "any")]
            for headers, status, code in refused:
                got = ask(service.url, method, filled(path), headers, body)
                require(got[:2] == (status, code), f"{method} {path} ({scope}) with {sorted(headers)}: {got[:2]} instead of {status} {code}")
                tried += 1
        pages(service, table, strangers, cookies)
        require(kept(folder) == before, "a refused call changed what is kept")
    for method, path, scope in table:
        for key in [KEY] + [KEYS[one] for one in SCOPES if scope in (one, "any")]:
            got = ask(service.url, method, filled(path), strangers.headers(key), None if method == "GET" else "{}")
            require(got[0] not in (401, 403, 429, 500), f"{method} {path} ({scope}) is refused with its scope: {got[:2]}")
            tried += 1
    require("is no API key" not in json.dumps(service.call("GET", "/v1/models", key="a wrong one")[1]), "a refusal repeats the key")
    return f"{len(table)} routes, {len(PAGES) + len(ACTIONS)} pages and actions, {tried:,} calls, none but with its scope; nothing changed by a refused one"


def pages(service, table, strangers, cookies):
    """Nobody sees a page without a session, and a session may what its key may."""
    for path in PAGES:
        for headers in ({}, {"cookie": "recoup_session=" + "A" * 43}, {"authorization": f"Bearer {KEY}"}):
            got = ask(service.url, "GET", path, headers)
            require(got[0] == 303 and got[2]["location"].startswith("/login"), f"a stranger gets {path}: {got[0]}")
        for cookie in cookies.values():
            got = ask(service.url, "GET", path, {"cookie": cookie})
            require(got[0] in (200, 303, 404) and not (got[2]["location"] or "").startswith("/login"), f"{path} with a session: {got[0]}")
    for path in ACTIONS:
        for headers, status in ((own(service.url), 401), ({"authorization": f"Bearer {KEY}"}, 401), (own(service.url, cookies["read"]), 403),
                                (own(service.url, cookies["all"]) | {"origin": "https://evil.example", "sec-fetch-site": "cross-site"}, 403)):
            got = ask(service.url, "POST", path, headers, "text=x")
            require(got[0] == status, f"POST {path} with {sorted(headers)}: {got[0]} instead of {status}")
    require(log_in(service.url, KEYS["submit"])[0] is None, "a key that may not read opens the page")


@proves("G11", small=1, full=1, faults=["AdminOnPublic"])
def two_listeners(bench, _):
    """With an admin listener the public one has the webhooks and /livez, and nothing else answers there."""
    admin = free_port()
    service = bench.serve(SERVER__ADMIN_LISTEN=f"127.0.0.1:{admin}", ready=False)
    until("ready", lambda: reachable(f"http://127.0.0.1:{admin}", "/readyz"))
    table = routes(f"http://127.0.0.1:{admin}")
    there = [(method, filled(path)) for method, path, _ in table] + [("GET", path) for path in PAGES] + [("POST", path) for path in ACTIONS]
    there += [("GET", "/readyz"), ("GET", "/login"), ("POST", "/login"), ("POST", "/logout"), ("GET", "/openapi.json"), ("GET", "/docs")]
    for method, path in there:
        got = ask(service.url, method, path, {"authorization": f"Bearer {KEY}"}, None if method == "GET" else "{}")
        require(got[0] == 404, f"{method} {path} answers {got[0]} on the public listener")
    require(reachable(service.url, "/livez"), "/livez does not answer on the public listener")
    status, _, _ = call(service.url, "POST", service.standing_path(bench), webhook("two-listeners"))
    require(status == 200, f"a webhook gets {status} on the public listener")
    status, _, _ = call(f"http://127.0.0.1:{admin}", "POST", service.standing_path(bench), webhook("two-listeners"))
    require(status == 404, f"a webhook gets {status} on the admin listener")
    return f"{len(there)} addresses are 404 on the public listener; webhooks and /livez answer"


def reachable(url, path):
    with contextlib.suppress(OSError):
        return call(url, "GET", path, timeout=5)[0] == 200


@proves("", small=1, full=1, faults=["LogoutIgnored", "CookieTakenOver", "OriginIgnored"])
def sessions(bench, _):
    """A session is fresh, ends with the logout and with its key, and does nothing that another site asks for."""
    folder = bench.subfolder("sessions")
    named_keys(folder)
    service = bench.serve(folder)
    inside = lambda cookie: ask(service.url, "GET", "/generations", {"cookie": cookie})[0] == 200
    _, answer = log_in(service.url, KEY)
    flags = answer.headers["set-cookie"]
    for flag in ("HttpOnly", "SameSite=Strict", "Path=/", "Max-Age="):
        require(flag in flags, f"the cookie lacks {flag}: {flags}")
    _, answer = log_in(service.url, KEY, {"origin": f"https://127.0.0.1:{service.port}", "host": f"127.0.0.1:{service.port}"})
    require(answer.status == 403 or "Secure" in answer.headers["set-cookie"], "the cookie of a browser that came by TLS is not Secure")
    brought = "recoup_session=" + base64.urlsafe_b64encode(os.urandom(32)).decode().rstrip("=")
    fresh, _ = log_in(service.url, KEY, {"cookie": brought})
    require(fresh != brought and not inside(brought) and inside(fresh), "a cookie that somebody else set is taken over")
    require(len({log_in(service.url, KEY)[0] for _ in range(50)}) == 50, "two sessions share a cookie")
    purchase_id, _ = service.prepare()
    for headers in ({"origin": "https://evil.example"}, {"sec-fetch-site": "cross-site"}, {"origin": "null"}):
        note = {"content-type": "application/x-www-form-urlencoded", "cookie": fresh} | headers
        got = ask(service.url, "POST", f"/generations/{purchase_id}/note", note, "text=from+elsewhere")
        require(got[0] == 403, f"what {headers} sends is done: {got[0]}")
        require(ask(service.url, "POST", "/logout", note, "")[0] == 403 and inside(fresh), "another site logs the visitor out")
    _, entries, _ = service.call("GET", f"/v1/generations/{purchase_id}/timeline")
    require("from elsewhere" not in json.dumps(entries), "another site's note is kept")
    require(ask(service.url, "POST", "/logout", own(service.url, fresh), "")[0] == 303 and not inside(fresh), "the session goes on after the logout")
    of_key, _ = log_in(service.url, KEYS["read"])
    require(inside(of_key), "no session")
    service.terminate()
    named_keys(folder, KEYS | {"read": "another key that may only read"})
    service = bench.serve(folder, port=service.port)
    require(not inside(of_key), "a session outlives its key")
    return "cookie flags, 51 fresh cookies, fixation, three kinds of foreign origin, logout, a changed key"


@proves("", small=600, full=20_000, faults=["GuessesUncounted"])
def guesses(bench, times):
    """Guessing keys is slowed to one in three seconds from an address, and locks out nobody who is known there."""
    folder = bench.subfolder("guesses")
    named_keys(folder)
    service = bench.serve(folder, WEBHOOK__TRUSTED_PROXIES="127.0.0.0/8")
    known = lambda key, far: ask(service.url, "GET", "/v1/models", {"authorization": f"Bearer {key}", "x-forwarded-for": far})[0]
    login = lambda key, far: log_in(service.url, key, {"x-forwarded-for": far})[1]
    shared, elsewhere = "203.0.113.7", "198.51.100.8"
    require(known(KEY, shared) == 200, "the key does not work")
    began, looked_at, honest = time.monotonic(), 0, 0
    for nth in range(times):
        guess = {"authorization": f"Bearer guess-{nth}", "x-forwarded-for": f"{nth % 250}.1.1.1, {shared}"}
        if nth % 2:
            status, headers = ask(service.url, "GET", "/v1/models", guess)[::2]
        else:
            answer = login(f"guess-{nth}", f"{nth % 250}.1.1.1, {shared}")
            status, headers = answer.status, answer.headers
        require(status in (401, 429), f"a guess is answered {status}")
        require(status != 429 or 1 <= int(headers["retry-after"]) <= 60, f"429 says {headers['retry-after']}")
        looked_at += status == 401
        if nth % 10 == 0:
            honest += 1
            require(known(KEY, shared) == 200, "who is known there is locked out")
            require(known(KEYS["read"], elsewhere) == 200, "somebody elsewhere is locked out")
    most = 201 + (time.monotonic() - began) / 3
    require(looked_at <= most, f"{looked_at} of {times} guesses were looked at, {most:.0f} would do")
    require(known(KEYS["submit"], shared) == 429 and login(KEYS["read"], shared).status == 429, "a right guess is told from a wrong one at once")
    return f"{looked_at} of {times:,} guesses looked at, the others 429; {honest * 2:,} honest calls, none refused"


@proves("", small=1, full=3, faults=["CoreDumped"])
def crash(bench, times):
    """A crash writes nothing of the memory to disk."""
    for nth in range(times):
        folder = bench.subfolder(f"crash-{nth}")
        service = bench.serve(folder, wrap=["sh", "-c", 'ulimit -c unlimited; exec "$@"', "sh"])
        os.kill(service.pid, signal.SIGABRT)
        _, ended = os.waitpid(service.pid, 0)
        service.process.returncode = -signal.SIGABRT
        require(os.WIFSIGNALED(ended) and os.WTERMSIG(ended) == signal.SIGABRT, f"it ended otherwise: {ended}")
        require(not os.WCOREDUMP(ended), "the kernel dumped its core")
    return f"{times} crashes, no core dumped though the limit allows it"


class Recorder:
    """Takes events and callers' callbacks, and keeps every byte."""

    def __init__(self):
        self.requests = requests = []

        class Answer(http.server.BaseHTTPRequestHandler):
            def do_POST(self):
                body = self.rfile.read(int(self.headers["content-length"] or 0))
                requests.append((self.path, str(self.headers).encode() + body))
                self.send_response(200)
                self.send_header("content-length", "0")
                self.end_headers()

            def log_message(self, *_):
                pass
        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Answer)
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()


def spellings(secret):
    """Raw, hex, base64 at each alignment in both alphabets, URL-coded, and as JSON writes it."""
    raw = secret.encode()
    found = {raw, raw.hex().encode(), raw.hex().upper().encode(), urllib.parse.quote(secret, safe="").encode(), urllib.parse.quote_plus(secret).encode(),
             json.dumps(secret)[1:-1].encode()}
    for shift in range(3):
        # what stands before and after is not known: the characters that depend on it are left out
        coded = base64.b64encode(b"\0" * shift + raw)[(0, 2, 3)[shift]:].rstrip(b"=")
        coded = coded[:-1] if (len(raw) + shift) % 3 else coded
        found |= {coded, coded.translate(bytes.maketrans(b"+/", b"-_"))}
    with contextlib.suppress(ValueError):
        # what is base64 itself, as cookies and the MACs of tokens are: the bytes behind it
        behind = base64.b64decode(secret.rsplit(".", 1)[-1].rstrip("=").translate(str.maketrans("-_", "+/")) + "=", validate=True)
        found |= {behind, behind.hex().encode()} if len(behind) == 32 else set()
    return found


def search(canaries, places):
    for place, content in places:
        for name, secret in canaries.items():
            for spelling in spellings(secret):
                require(spelling not in content, f"{name} stands in {place}: ...{content[max(0, content.find(spelling) - 60):][:40]!r}...")


@proves("G18", small=1, full=3, faults=["PathLogged", "KeyEchoed", "PanicTellsAll", "SecretUnmasked"])
def canaries(bench, times):
    """No secret stands in logs at trace level, database, answers, pages, events, metrics, command line or output."""
    searched = 0
    for nth in range(times):
        searched += one_canary_run(bench, bench.subfolder(f"canaries-{nth}"))
    return f"{searched / 1e6:.1f} MB searched for 11 kinds of secrets in up to 15 spellings, none found"


def one_canary_run(bench, folder):
    fresh = lambda kind: f"canary/{kind}+{bench.chance.randbytes(12).hex()}&="
    event_key = base64.b64encode(bench.chance.randbytes(32)).decode()
    secrets = {"the provider's key": fresh("provider"), "the key for everything": fresh("all"), "a reader's key": fresh("read"),
               "a wrong key": fresh("wrong"), "the callback key": fresh("callback"), "an old callback key": fresh("old"),
               "the events' secret": event_key, "a foreign cookie": fresh("cookie"), "a foreign token": fresh("token")}
    recorder = Recorder()
    named_keys(folder, {"read": secrets["a reader's key"]}, f'[[events.endpoints]]\nurl = "{recorder.url}/events"\nsecret = "whsec_{event_key}"\n')
    provider = bench.sandbox("--key", secrets["the provider's key"], "--speed", 10_000)
    settings = {"PROVIDER__API_KEY": secrets["the provider's key"], "API__KEY": secrets["the key for everything"], "LOG__LEVEL": "trace",
                "WEBHOOK__SECRETS": f'{secrets["the callback key"]},{secrets["an old callback key"]}', "EVENTS__ALLOW_PRIVATE_ADDRESSES": "true"}
    service = bench.serve(folder, provider=provider.url, **settings)
    shown = [(f"the answer to {method} {path}", answer) for method, path, answer in live(service, secrets, recorder)]
    tokens = {f"token {nth}": urllib.parse.urlsplit(bought["callback_url"]).path.rsplit("/", 1)[1] for nth, bought in enumerate(provider.ledger()) if bought["callback_url"]}
    with open(f"/proc/{service.pid}/cmdline", "rb") as file:
        shown.append(("the command line", file.read()))
    environment = {"PATH": os.environ["PATH"]} | bench.planting() | {f"RECOUP_{key}": value for key, value in settings.items()} | {"RECOUP_DATABASE__URL": f"sqlite://{folder}/recoup.db"}
    for arguments in (["config", "check"], ["backup", "copy.db"], ["serve"], ["config", "check", "--config", "recoup.db"]):
        ran = subprocess.run([bench.binary, *arguments], cwd=folder, env=environment, capture_output=True, timeout=60)
        shown.append((f"the output of recoup {' '.join(arguments)}", ran.stdout + ran.stderr))
    require(service.terminate() == 0, "it does not stop in good order")
    for name in ("recoup.log", "recoup.db", "recoup.db-wal", "copy.db"):
        with contextlib.suppress(FileNotFoundError), open(os.path.join(folder, name), "rb") as file:
            shown.append((name, file.read()))
    require(any(b'"level":"TRACE"' in content for place, content in shown if place == "recoup.log"), "the log is not at trace level")
    require(len(recorder.requests) >= 4, f"only {len(recorder.requests)} events came")
    shown += [(f"what {path.split('?')[0].split('/own')[0] or 'the caller'} was sent", content) for path, content in recorder.requests]
    search(secrets | tokens, shown)
    logged = [(place, content) for place, content in shown if place in ("recoup.log", "the command line") or "metrics" in place]
    search({"a caller's own callback URL": CALLERS}, logged)
    return sum(len(content) for _, content in shown)


CALLERS = "canary-of-the-caller-7d1b6c"


def live(service, secrets, recorder):
    """A little life: sales, a lost webhook, refusals of every kind, everything looked at. Gives method, path and answer of what may hold no secret."""
    key, reader, seen = secrets["the key for everything"], secrets["a reader's key"], []

    def note(method, path, headers, body=None, told=True, timeout=20):
        where = urllib.parse.urlsplit(service.url)
        connection = http.client.HTTPConnection(where.hostname, where.port, timeout=timeout)
        with contextlib.closing(connection):
            connection.request(method, path, body, headers)
            answer = connection.getresponse()
            content = str(answer.headers).encode() + (b"" if answer.headers.get_content_type() == "text/event-stream" else answer.read())
        if told:
            seen.append((method, path.split("?")[0], content))
        return answer, content
    bearer = {"authorization": f"Bearer {key}", "content-type": "application/json"}
    for prompt in ("a boat", "a boat [sandbox: fail=TIMEOUT]", "a boat [sandbox: lose]", "a boat [sandbox: garble]"):
        body = json.dumps({"prompt": prompt, "callback_url": f"{recorder.url}/own?t={CALLERS}"})
        answer, _ = note("POST", "/gateway/v1/kling/o3-video/generate", bearer, body)
        require(answer.status == 201, f"a purchase is answered {answer.status}")
        bought = answer.headers["recoup-generation"]
        if "lose" in prompt or "garble" in prompt:
            ended = lambda: b'"completed"' in note("POST", f"/v1/generations/{bought}/checks", bearer, "{}", told=False)[1]
            until("a check finds the outcome", ended)
        until("it ends", lambda: note("GET", f"/v1/generations/{bought}", bearer, told=False)[1].find(b'"settled_at":"') > 0)
    until("events come", lambda: len(recorder.requests) >= 8)
    standing = service.call("GET", "/setup", key=None)  # a stranger's view
    seen.append(("GET", "/setup", repr(standing[1:]).encode()))
    wrong = {"authorization": f"Bearer {secrets['a wrong key']}", "cookie": f"recoup_session={urllib.parse.quote(secrets['a foreign cookie'], safe='')}"}
    token = urllib.parse.quote(secrets["a foreign token"], safe="")
    for method, path, headers, body in [
        ("POST", f"/webhooks/kling/o3-video/any.{token}", {}, webhook("x")), ("POST", f"/webhooks/kling/o3-video/{token}", {}, "x"), ("GET", f"/nothing/{token}", {}, None),
        ("GET", "/v1/generations", wrong, None), ("POST", "/v1/generations", wrong, "{"), ("GET", "/", wrong, None), ("GET", "/metrics", wrong, None), ("POST", "/login", wrong | own(service.url), urllib.parse.urlencode({"key": secrets["a wrong key"]})),
        ("POST", "/v1/generations", bearer, '{"family": "no such family"}'), ("POST", "/v1/generations", bearer, "{"), ("GET", "/v1/generations?limit=x", bearer, None), ("GET", "/v1/events/stream", bearer, None)]:
        with contextlib.suppress(OSError):
            note(method, path, headers, body)
    for secret in (key, reader):
        cookie, _ = log_in(service.url, secret)
        if not cookie:
            raise Broken("nobody can log in")
        secrets[f"the session of {'everybody' if secret == key else 'the reader'}"] = cookie.split("=", 1)[1]
        for path in PAGES + ["/events/redeliver", f"/generations/{bought}"]:
            # A standing URL is shown there to those who may use it.
            note("GET", path, {"cookie": cookie}, told=path != "/live")
    _, listed = note("GET", "/v1/events", bearer)
    for _, path, _ in [route for route in ROUTES if route[0] == "GET" and "stream" not in route[1]] + [("GET", f"/v1/generations/{bought}{part}", "") for part in ("", "/timeline", "/diagnosis", "/evidence")]:
        note("GET", filled(path), bearer)
    events = json.loads(listed[listed.find(b'{"data"'):])["data"]
    note("GET", f"/v1/events/{events[0]['id']}", bearer)
    return seen
