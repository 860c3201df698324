"""Traffic for the proofs: many connections with one thread, a recording endpoint, and what a database holds as SQLite itself sees it."""
import collections, http.server, json, os, selectors, shutil, socket, sqlite3, subprocess, threading, time

import common
from common import require

ENDPOINT_SECRET = "whsec_" + "cHJvb2Y" * 5 + "="


def request(path, body, mark):
    """A webhook as bytes. `mark` comes back in the head of its answer."""
    body = body.encode()
    return (f"POST {path} HTTP/1.1\r\nhost: recoup\r\ncontent-type: application/json\r\nx-request-id: {mark}\r\n"
            f"content-length: {len(body)}\r\n\r\n").encode() + body


class Line:
    """One connection with at most one request under way."""

    def __init__(self, port):
        self.socket = socket.create_connection(("127.0.0.1", port), timeout=30)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.mark, self.began, self.got = None, 0.0, b""

    def send(self, path, body, mark, began=None):
        self.mark, self.began, self.got = mark, began or time.monotonic(), b""
        self.socket.sendall(request(path, body, mark))

    def status(self):
        """Reads what is there; the answer's status once it is whole."""
        read = self.socket.recv(65536)
        if not read:
            raise OSError("the connection was closed")
        self.got += read
        head, found, body = self.got.partition(b"\r\n\r\n")
        if not found:
            return None
        length = next(int(line.split(b":")[1]) for line in head.split(b"\r\n") if line.lower().startswith(b"content-length"))
        return int(head[9:12]) if len(body) >= length else None


class Flood:
    """Webhooks about ever new generations over many connections, by one thread: sets of what was acknowledged and refused, and how long it took.

    Without `rate` as fast as they are answered; with one so many a second, and times are counted from when each was to be sent."""

    def __init__(self, port, path, connections, mark="f", rate=None):
        self.port, self.path, self.connections, self.prefix, self.rate = port, path, connections, mark, rate
        self.acknowledged, self.refused, self.took_ms, self.broken, self.nth = set(), set(), [], None, 0

    def next(self, line, began=None):
        self.nth += 1
        mark = f"{self.prefix}-{self.nth}"
        line.send(self.path, common.webhook(mark), mark, began)

    def run(self, seconds=None, stop=None, most=None):
        selector, lines = selectors.DefaultSelector(), []
        began = time.monotonic()
        try:
            lines = [Line(self.port) for _ in range(self.connections)]
            for line in lines:
                selector.register(line.socket, selectors.EVENT_READ, line)
            idle, busy = collections.deque(lines), 0
            while True:
                now = time.monotonic()
                ends = (seconds is not None and now - began >= seconds) or (stop is not None and stop.is_set()) or (most is not None and self.nth >= most)
                while idle and not ends:
                    due = began + self.nth / self.rate if self.rate else now
                    if due > now:
                        break
                    self.next(idle.popleft(), due)
                    busy += 1
                    ends = most is not None and self.nth >= most
                if ends and not busy:
                    break
                for key, _ in selector.select(0.002 if self.rate else 0.2):
                    line = key.data
                    status = line.status()
                    if status is None:
                        continue
                    (self.acknowledged if status == 200 else self.refused).add(line.mark)
                    self.took_ms.append((time.monotonic() - line.began) * 1e3)
                    idle.append(line)
                    busy -= 1
        except OSError as error:
            self.broken = error
        finally:
            for line in lines:
                line.socket.close()
            selector.close()
        self.seconds = time.monotonic() - began
        return self

    def percentile(self, percent):
        times = sorted(self.took_ms)
        return times[min(len(times) - 1, len(times) * percent // 100)] if times else 0.0


class Endpoint:
    """A user's endpoint: keeps every event it is sent, and refuses some the first time."""

    def __init__(self, refuse_every=0):
        self.events, self.ids, self.asked, lock = {}, {}, 0, threading.Lock()
        endpoint = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self):
                event = json.loads(self.rfile.read(int(self.headers["content-length"])))
                subject = (event["data"]["id"], event["sequence"])
                with lock:
                    endpoint.asked += 1
                    first = subject not in endpoint.events
                    endpoint.events.setdefault(subject, set()).add(self.headers["webhook-id"])
                    endpoint.ids.setdefault(self.headers["webhook-id"], set()).add(subject)
                    refuse = refuse_every and first and len(endpoint.events) % refuse_every == 0
                self.send_response(500 if refuse else 204)
                self.send_header("content-length", "0")
                self.end_headers()

            def log_message(self, *_):
                pass

        class Server(http.server.ThreadingHTTPServer):
            def handle_error(self, *_):
                pass  # the service was killed while it told

        self.server = Server(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self.server.server_port}/hook"
        threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()

    def configuration(self):
        return ("[events]\nallow_private_addresses = true\nretry_schedule = [\"100ms\", \"500ms\", \"1s\", \"2s\", \"2s\", \"2s\", \"2s\"]\n"
                f"[[events.endpoints]]\nurl = \"{self.url}\"\nsecret = \"{ENDPOINT_SECRET}\"\n")

    def check(self):
        """Each event under one id, each id for one event."""
        for subject, ids in list(self.events.items()):
            require(len(ids) == 1, f"the event {subject} came under {len(ids)} ids")
        for one, subjects in list(self.ids.items()):
            require(len(subjects) == 1, f"the id {one} was used for {len(subjects)} events")

    def close(self):
        self.server.shutdown()
        self.server.server_close()


def generations(service, query=""):
    """Every generation on record, as the API shows it."""
    rows, cursor = [], ""
    while cursor is not None:
        status, page, _ = service.call("GET", f"/v1/generations?limit=200{query}{cursor and '&cursor=' + cursor}")
        require(status == 200, f"the list of generations is answered {status}: {page}")
        rows += page["data"]
        cursor = page["next_cursor"]
    return rows


def known(service):
    return {row["generation_id"] for row in generations(service)}


def verdict(folder, name="recoup.db"):
    """SQLite's own word on a copy of the database and its log."""
    copy = os.path.join(folder, "copy")
    shutil.rmtree(copy, ignore_errors=True)
    os.mkdir(copy)
    for ending in ("", "-wal"):
        if os.path.exists(os.path.join(folder, name + ending)):
            shutil.copy(os.path.join(folder, name + ending), os.path.join(copy, name + ending))
    connection = sqlite3.connect(os.path.join(copy, name))
    try:
        found = connection.execute("PRAGMA integrity_check(3)").fetchall()
        return "; ".join(row[0] for row in found) if found != [("ok",)] else "ok"
    except sqlite3.DatabaseError as error:
        return str(error)
    finally:
        connection.close()
        shutil.rmtree(copy, ignore_errors=True)


def whole(folder):
    found = verdict(folder)
    require(found == "ok", f"the database is not whole: {found}")


def strace(calls, inject=None, more=()):
    """A command in front that does something to system calls. The service stays our own child."""
    wrap = [common.tool("strace"), "-D", "-f", "-qq", "-o", "/dev/null", "-e", f"trace={calls}", "-e", "signal=none", *more]
    return [*wrap, "-e", f"inject={calls}:{inject}"] if inject else wrap


def counted(service_log, calls):
    """How often the busiest thread made each of these calls, by a trace: strace counts for every thread and call apart."""
    most, each = {}, {}
    with open(service_log, errors="replace") as lines:
        for line in lines:
            thread, _, rest = line.partition(" ")
            name = rest.strip().split("(")[0]
            if name in calls:
                each[thread, name] = each.get((thread, name), 0) + 1
                most[name] = max(most.get(name, 0), each[thread, name])
    return most


def ended(process, seconds):
    """The exit code, once it ends by itself; else None."""
    try:
        return process.process.wait(seconds)
    except subprocess.TimeoutExpired:
        return None
