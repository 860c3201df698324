"""What the proofs share: the service and the simulated provider as processes, raw HTTP, and how a check is written down.

A check is a function marked with @proves. It gets a Bench, does as many things as it is told, raises Broken when the promise does not
hold, and gives back what it measured, in a few words. `run` runs it on the binary as it is, where it must hold, and then once for each
fault planted on purpose, where it must not: a check that never went red proves nothing.
"""
import contextlib, http.client, itertools, json, os, random, shutil, signal, socket, subprocess, tempfile, time, urllib.parse

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
KEY = "the-key-of-the-proofs"
SECRET = "the secret of the proofs; long enough"
PROVIDER_KEY = "the-providers-key-of-the-proofs"
CHECKS = []


class Broken(Exception):
    """The promise does not hold."""


class Missing(Exception):
    """What the check needs is not on this machine, and cannot be had."""


class Check:
    def __init__(self, function, goal, small, full, faults, floor):
        self.function, self.goal, self.small, self.full, self.faults, self.floor = function, goal, small, full, faults, floor
        self.name = function.__name__
        self.promise = (function.__doc__ or "").strip().split("\n")[0]
        self.suite = function.__module__


def proves(goal, small, full, faults=(), floor=None):
    """Marks a check. `goal`: the row of reliability.md section 4, or ''. `small` and `full`: how many times, for CI and for the table;
    `None` leaves it out there. `faults`: names of src/planted.rs that it must catch; they run with the small number."""
    def mark(function):
        CHECKS.append(Check(function, goal, small, full, faults, floor))
        return function
    return mark


def require(condition, what):
    if not condition:
        raise Broken(what)


def free_port(ports=itertools.count(random.SystemRandom().randrange(22_000))):
    """A port below those the kernel gives to outgoing connections, another one each time: no client takes it before, or between two starts
    of, its server. Tried by calling, not by binding: a child that is being forked would hold it a little longer."""
    while True:
        port = 10_000 + next(ports) % 22_000
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)):
                return port


def until(what, condition, seconds=20.0, every=0.02):
    """Waits for what comes by itself. Broken when it does not come."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        found = condition()
        if found:
            return found
        time.sleep(every)
    raise Broken(f"does not happen within {seconds:.0f} s: {what}")


def call(base, method, path, body=None, key=None, headers=None, timeout=30.0):
    """Status, body as JSON where it is some, headers. Raises OSError when there is no answer."""
    where = urllib.parse.urlsplit(base)
    connection = http.client.HTTPConnection(where.hostname, where.port, timeout=timeout)
    try:
        if body is not None and not isinstance(body, (bytes, str)):
            body = json.dumps(body)
        head = {"content-type": "application/json"} | ({"authorization": f"Bearer {key}"} if key else {}) | (headers or {})
        connection.request(method, path, body, head)
        answer = connection.getresponse()
        raw = answer.read()
        try:
            return answer.status, json.loads(raw), answer.headers
        except ValueError:
            return answer.status, raw, answer.headers
    except http.client.HTTPException as error:
        raise OSError(f"no whole answer: {error!r}") from error
    finally:
        connection.close()


class Process:
    """A process of ours, ended by its own pid."""

    def __init__(self, command, folder, environment, log):
        self.folder, self.log = folder, log
        with open(log, "ab") as file:
            self.process = subprocess.Popen(command, cwd=folder, env=environment, stdout=file, stderr=file, start_new_session=True)

    @property
    def pid(self):
        return self.process.pid

    def alive(self):
        return self.process.poll() is None

    def kill(self):
        """As the power would, but for what the kernel still holds."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait(30)

    def terminate(self, seconds=30):
        """Stops it in good order; its exit code."""
        self.process.send_signal(signal.SIGTERM)
        try:
            return self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            self.kill()
            raise Broken(f"does not stop within {seconds} s") from None

    def figure(self, what):
        """A line of /proc/PID/status, in KiB."""
        with open(f"/proc/{self.pid}/status") as status:
            return next(int(line.split()[1]) for line in status if line.startswith(what + ":"))

    def descriptors(self):
        return len(os.listdir(f"/proc/{self.pid}/fd"))

    def words(self):
        with open(self.log, errors="replace") as file:
            return file.read()


class Service(Process):
    """`recoup serve`."""

    def __init__(self, bench, folder, port=None, provider="http://127.0.0.1:1", wrap=(), ready=True, **settings):
        """`settings`: SECTION__KEY=value. `wrap`: a command in front, such as strace."""
        self.port = port or free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        environment = {"PATH": os.environ["PATH"], "HOME": folder} | bench.planting() | {
            "RECOUP_PROVIDER__API_KEY": PROVIDER_KEY, "RECOUP_PROVIDER__BASE_URL": provider, "RECOUP_API__KEY": KEY,
            "RECOUP_WEBHOOK__SECRETS": SECRET, "RECOUP_SERVER__LISTEN": f"127.0.0.1:{self.port}",
            "RECOUP_SERVER__PUBLIC_URL": self.url, "RECOUP_DATABASE__URL": f"sqlite://{folder}/recoup.db",
        } | {f"RECOUP_{key}": value for key, value in settings.items()}
        super().__init__([*wrap, bench.binary, "serve"], folder, environment, os.path.join(folder, "recoup.log"))
        if ready:
            self.ready()

    def ready(self, seconds=20.0):
        def answers():
            require(self.alive(), f"it does not start:\n{self.words()[-2000:]}")
            with contextlib.suppress(OSError):
                return call(self.url, "GET", "/readyz", timeout=5)[0] == 200
        until("ready", answers, seconds, 0.005)

    def call(self, method, path, body=None, key=KEY, headers=None, timeout=30.0):
        return call(self.url, method, path, body, key, headers, timeout)

    def prepare(self, family="kling/o3-video"):
        """A generation to be bought: our id, and the path its webhooks come to."""
        status, answer, _ = self.call("POST", "/v1/generations", {"family": family})
        require(status == 201, f"cannot prepare: {status} {answer}")
        return answer["id"], urllib.parse.urlsplit(answer["callback_url"]).path

    def standing_path(self, bench, family="kling/o3-video"):
        environment = {"PATH": os.environ["PATH"], "RECOUP_WEBHOOK__SECRETS": SECRET, "RECOUP_SERVER__PUBLIC_URL": self.url,
                       "RECOUP_PROVIDER__BASE_URL": "http://127.0.0.1:1"}
        told = subprocess.run([bench.binary, "callback-url", family], env=environment, check=True, capture_output=True, text=True).stdout
        return urllib.parse.urlsplit(told.split()[-1]).path


class Sandbox(Process):
    """`recoup sandbox`: the provider, with its ledger. Never has a fault planted: it is the oracle."""

    def __init__(self, bench, folder, *arguments):
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        command = [bench.binary, "sandbox", "--listen", f"127.0.0.1:{self.port}", *map(str, arguments)]
        super().__init__(command, folder, {"PATH": os.environ["PATH"]}, os.path.join(folder, "sandbox.log"))
        until("the sandbox listens", self.listens)

    def listens(self):
        with contextlib.suppress(OSError):
            return call(self.url, "GET", "/sandbox/ledger")[0] == 200

    def ledger(self):
        return call(self.url, "GET", "/sandbox/ledger")[1]


class Bench:
    """Where one check runs: the binary, the fault planted in it, chances out of a seed, a folder, and what is to be ended after it."""

    def __init__(self, binary, seed, fault=None, is_beside_others=False):
        self.binary, self.seed, self.fault, self.is_beside_others = binary, seed, fault, is_beside_others
        self.chance = random.Random(seed)
        self.folder = tempfile.mkdtemp(prefix="recoup-proof-")
        self.processes = []

    def planting(self):
        return {"RECOUP_PLANTED": self.fault} if self.fault else {}

    def require_in_time(self, condition, what):
        """As `require`, for how fast it is: judged on quiet cores only, for the small numbers run beside anything."""
        require(condition or self.is_beside_others, what)

    def subfolder(self, name):
        path = os.path.join(self.folder, name)
        os.makedirs(path, exist_ok=True)
        return path

    def serve(self, folder=None, **settings):
        service = Service(self, folder or self.folder, **settings)
        self.processes.append(service)
        return service

    def sandbox(self, *arguments):
        sandbox = Sandbox(self, self.folder, *arguments)
        self.processes.append(sandbox)
        return sandbox

    def close(self):
        for process in self.processes:
            if process.alive():
                process.kill()
        shutil.rmtree(self.folder, ignore_errors=True)


def tool(name, package=None):
    """The path of a program; installs Debian's package where that can be done."""
    found = shutil.which(name)
    if not found and os.geteuid() == 0 and shutil.which("apt-get"):
        for command in (["update", "-q"], ["install", "-qy", "--no-install-recommends", package or name]):
            subprocess.run(["apt-get", *command], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        found = shutil.which(name)
    if not found:
        raise Missing(f"{name} is needed: apt-get install {package or name}")
    return found


def webhook(provider_id, status="completed", **fields):
    """A webhook's body as the provider sends it (provider.md section 4)."""
    body = {"generation_id": provider_id, "status": status, "video_url": None, "model": "kling-o3-video-5s", "message": None}
    if status == "completed":
        body["video_url"] = f"https://cdn.example.net/v/{provider_id}.mp4"
    return json.dumps(body | fields)
