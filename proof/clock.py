"""The clock on the wall jumps, and the process is stopped for a while: the budget holds, nothing is decided by time, nothing sleeps for ever."""
import contextlib, glob, http.server, json, os, signal, threading, time

from clients import Hall, Watcher, tells
from common import Missing, proves, require, tool, until, webhook

BUDGET = 20
OPEN = 60
# Seconds that the wall clock is off, one after the other.
JUMPS = {"+0": 0, "-10y": -315_360_000, "-1h": -3_600, "+30m": 1_800, "+2d": 172_800, "+10y": 315_360_000}
# The longest pause between two looks at something open (contract section 9), and a minute to notice a jump.
LOOK_WITHIN = 3_600 + 60


class Counting:
    """A provider that says of everything that it is still running, and when it was asked, by a clock that does not jump."""

    def __init__(self):
        asked = self.asked = []

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self):
                asked.append(time.monotonic())
                body = json.dumps({"generation_id": self.path.rsplit("/", 1)[1], "status": "processing"}).encode()
                self.send_response(200)
                self.send_header("content-length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_):
                pass

        server = Hall(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{server.server_address[1]}"
        threading.Thread(target=server.serve_forever, daemon=True).start()

    def most_in_a_minute(self):
        asked = sorted(self.asked)
        return max((sum(1 for later in asked[nth:] if later < at + 60) for nth, at in enumerate(asked)), default=0)


def faked(bench):
    """The environment in which the wall clock is what a file says; the file."""
    tool("faketime")
    found = glob.glob("/usr/lib/*/faketime/libfaketimeMT.so.1") + glob.glob("/usr/lib/*/faketime/libfaketime.so.1")
    if not found:
        raise Missing("libfaketime is needed: apt-get install faketime")
    path = os.path.join(bench.folder, "wall-clock")
    settings = {"LD_PRELOAD": found[0], "FAKETIME_TIMESTAMP_FILE": path, "FAKETIME_NO_CACHE": "1", "FAKETIME_DONT_FAKE_MONOTONIC": "1",
                "DONT_FAKE_MONOTONIC": "1"}
    return ["env", *(f"{name}={value}" for name, value in settings.items())], path


def jump(path, offset):
    with open(path + ".new", "w") as file:
        file.write(offset + "\n")
    os.replace(path + ".new", path)


def at(text):
    """RFC 3339 as seconds since 1970, for years that Python's own clock would not mind either."""
    import datetime
    return datetime.datetime.fromisoformat(text.replace("Z", "+00:00")).timestamp()


class Trial:
    """A service under a wall clock that jumps, with open generations, and whoever hears of it."""

    def __init__(self, bench):
        self.bench, self.provider, self.watcher, self.told = bench, Counting(), Watcher(), 0
        tells(bench, f"{self.watcher.url}/events")
        wrap, self.path = faked(bench)
        jump(self.path, "+0")
        self.service = bench.serve(provider=self.provider.url, wrap=wrap, LOG__LEVEL="warn", PROVIDER__STATUS_CHECKS_PER_MINUTE=str(BUDGET))
        self.standing = self.service.standing_path(bench)
        # So long ago that it is time to look, and not yet so long that something would be wrong.
        bought = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(time.time() - 720))
        for nth in range(OPEN):
            made = self.service.call("POST", "/v1/generations", {"generation_id": f"open-{nth}", "family": "kling/o3-video", "submitted_at": bought})
            require(made[0] == 201, f"cannot register: {made}")

    def shown(self):
        return [row for row in self.service.call("GET", "/v1/generations?limit=200")[1]["data"] if row["generation_id"].startswith("open-")]

    def holds(self, name, off):
        """What holds whatever the time is said to be."""
        service = self.service
        # Whoever asks wakes the sweeper, as its own minute would.
        service.call("POST", "/v1/generations/open-0/checks")
        most = self.provider.most_in_a_minute()
        require(most <= BUDGET, f"after {name}: {most} reads within a minute, {BUDGET} are allowed")
        self.told += 1
        require(service.call("POST", self.minted(), webhook(f"told-{self.told}"), key=None)[0] == 200, f"after {name}: a webhook is refused")
        until(f"after {name}: its event leaves", lambda: self.watcher.events() >= self.told)

        def looked_after():
            asleep = []
            for row in self.shown():
                require(row["status"] not in ("completed", "failed"), f"after {name}: {row['status']} though nobody said so")
                if off >= 1_800 and row["attention"] is None:
                    asleep.append(row["id"])
                if row["status"] != "lost" and at(row["next_check_at"]) > time.time() + off + LOOK_WITHIN:
                    asleep.append(row["next_check_at"])
            return not asleep
        until(f"after {name}: everything open is looked at within the hour, and what is overdue is shown", looked_after, 10)

    def minted(self):
        return self.service.prepare()[1]


@proves("G15", small=6, full=24, faults=["BudgetByCalendar", "FailedByTime", "SleepsForEver"])
def jumps(bench, hours):
    """Whatever the wall clock says, the budget holds, time alone decides nothing, nothing sleeps for ever, events leave."""
    trial = Trial(bench)
    until("the budget is spent", lambda: len(trial.provider.asked) >= BUDGET)
    for offset, off in JUMPS.items():
        jump(trial.path, offset)
        trial.holds(offset, off)
    for hour in range(1, hours + 1):
        jump(trial.path, f"+{hour}h")
        trial.holds(f"+{hour}h", hour * 3_600)
    jump(trial.path, "+0")
    trial.holds("back to now", 0)
    if hours >= 24:
        asked = len(trial.provider.asked)
        until("a minute later it asks again", lambda: len(trial.provider.asked) > asked, 130)
        trial.holds("a minute later", 0)
    return (f"{len(JUMPS)} jumps, {hours} hourly ones, and back: {trial.provider.most_in_a_minute()} reads in any minute of {BUDGET} allowed, "
            f"0 of {OPEN} decided, {trial.told} events sent")


@proves("G15", small=4, full=60, faults=["TimeGained"])
def standstill(bench, seconds):
    """A process that was stopped for a minute makes up for nothing: the budget holds, and it goes on."""
    trial = Trial(bench)
    until("the budget is spent", lambda: len(trial.provider.asked) >= BUDGET)
    group = os.getpgid(trial.service.pid)
    os.killpg(group, signal.SIGSTOP)
    try:
        # Nothing can be waited for while nothing runs.
        time.sleep(seconds)
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(group, signal.SIGCONT)
    trial.holds("the standstill", 0)
    if seconds >= 60:
        until("it asks again", lambda: len(trial.provider.asked) > BUDGET, 90)
        trial.holds("the minute after", 0)
    return f"{seconds} s: {trial.provider.most_in_a_minute()} reads in any minute of {BUDGET} allowed, 0 of {OPEN} decided, events leave"
