"""What the tests share: the sandbox and recoup as processes, and proofs that print one line each."""
import asyncio, contextlib, json, os, pathlib, signal, subprocess, sys, tempfile, time, traceback, urllib.request

sys.path.append(str(pathlib.Path(__file__).parents[2] / "benches"))
from common import free_port

BINARY = os.environ["RECOUP_BINARY"]
PROVIDER_KEY = "the provider's key"
API_KEY = "the key of the drop-in"
WEBHOOK_SECRET = "the secret of the provider's dashboard"
# Loopback only.
os.environ["NO_PROXY"] = os.environ["no_proxy"] = "127.0.0.1"


class Process:
    """A process that is ended with the test, by its own number."""

    # Whether a fault planted by RECOUP_PLANTED (src/planted.rs) is for it.
    may_be_planted = False

    def __init__(self, *arguments, log, environment=None):
        self.log = log
        inherited = {name: value for name, value in os.environ.items() if name != "RECOUP_PLANTED" or self.may_be_planted}
        with open(log, "ab") as output:
            self.child = subprocess.Popen([BINARY, *arguments], stdout=output, stderr=output, env={**inherited, **(environment or {})})

    def kill(self):
        self.child.kill()
        self.child.wait()

    def stop(self):
        if self.child.poll() is None:
            self.child.send_signal(signal.SIGTERM)
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.child.wait(30)
        if self.child.poll() is None:
            self.kill()


class Sandbox(Process):
    """The simulated provider. Never has a fault planted: it is the oracle."""

    def __init__(self, folder, *arguments):
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        super().__init__("sandbox", "--listen", f"127.0.0.1:{self.port}", "--key", PROVIDER_KEY, "--webhook-secret", WEBHOOK_SECRET,
                         *arguments, log=f"{folder}/sandbox.log")
        wait_for(self, lambda: call(f"{self.url}/sandbox/ledger"))

    def ledger(self):
        return call(f"{self.url}/sandbox/ledger")

    def order(self, what, body):
        call(f"{self.url}/sandbox/{what}", body)


class Service(Process):
    """recoup on a database of its own."""

    may_be_planted = True

    def __init__(self, folder, provider_url, more="", port=None):
        self.folder, self.port = folder, port or free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        config = pathlib.Path(folder, "config.toml")
        config.write_text(f"""
[server]
listen = "127.0.0.1:{self.port}"
public_url = "{self.url}"
[database]
url = "sqlite://{folder}/recoup.db"
[provider]
base_url = "{provider_url}"
api_key = "{PROVIDER_KEY}"
[webhook]
secrets = ["a secret for callback URLs"]
provider_secrets = ["{WEBHOOK_SECRET}"]
[api]
key = "{API_KEY}"
[events]
allow_private_addresses = true
[log]
level = "warn"
{more}""")
        self.start()

    def start(self):
        super().__init__("serve", "--config", f"{self.folder}/config.toml", log=f"{self.folder}/recoup.log")
        wait_for(self, lambda: call(f"{self.url}/livez"))

    def get(self, path):
        return call(f"{self.url}{path}", key=API_KEY)

    def all(self, query):
        """Every generation of a query, page by page."""
        cursor, found = "", []
        while cursor is not None:
            page = self.get(f"/v1/generations?limit=200&{query}{cursor}")
            found += page["data"]
            cursor = page.get("next_cursor") and f"&cursor={page['next_cursor']}"
        return found


def wait_for(process, ready):
    for _ in range(600):
        if process.child.poll() is not None:
            raise SystemExit(f"{process.log}:\n{pathlib.Path(process.log).read_text()}")
        with contextlib.suppress(OSError, ValueError):
            ready()
            return
        time.sleep(0.05)
    raise SystemExit(f"{process.log}: does not answer")


def call(url, body=None, key=None):
    headers = {"Content-Type": "application/json"} if body is not None else {}
    if key:
        headers["Authorization"] = f"Bearer {key}"
    data = json.dumps(body).encode() if body is not None else None
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with opener.open(urllib.request.Request(url, data, headers), timeout=30) as answer:
        text = answer.read()
        return json.loads(text) if text[:1] in (b"{", b"[") else text.decode()


class Proofs:
    """Runs proofs and prints a line for each; all are run, whatever fails."""

    def __init__(self, where):
        self.where, self.failed, self.run = where, [], 0

    async def prove(self, name, proof):
        self.run += 1
        try:
            said = await proof
        except Exception as error:
            self.failed.append(name)
            place = traceback.extract_tb(error.__traceback__)
            own = [frame for frame in place if "tests/clients" in frame.filename] or place
            print(f"FAILED  {self.where}: {name}: {type(error).__name__}: {str(error)[:300]} (line {own[-1].lineno})", flush=True)
        else:
            print(f"ok      {self.where}: {name}{f': {said}' if said else ''}", flush=True)


class Listener:
    """A receiver of webhooks: keeps every request with its headers and answers 200."""

    async def __aenter__(self):
        self.requests, self.news, self.writers = [], asyncio.Condition(), set()
        self.server = await asyncio.start_server(self.serve, "127.0.0.1", 0)
        self.url = f"http://127.0.0.1:{self.server.sockets[0].getsockname()[1]}"
        return self

    async def __aexit__(self, *error):
        self.server.close()
        for writer in self.writers:
            writer.close()
        # Their tasks end with their connections.
        await asyncio.sleep(0.1)

    async def serve(self, reader, writer):
        self.writers.add(writer)
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
                headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in head[1:] if line)}
                body = await reader.readexactly(int(headers.get("content-length", 0)))
                async with self.news:
                    self.requests.append((head[0].split(" ")[1], headers, body))
                    self.news.notify_all()
                writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n")
                await writer.drain()
        writer.close()

    async def heard(self, path, seconds=30):
        """The first request to that path."""
        async with asyncio.timeout(seconds), self.news:
            while True:
                for request in self.requests:
                    if request[0] == path:
                        return request
                await self.news.wait()


def folder():
    return tempfile.TemporaryDirectory(prefix="recoup-clients-")
