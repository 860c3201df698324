#!/usr/bin/env python3
"""How many webhooks a second are answered durably, beside what bounds it and beside what one would write instead.

    benches/ingest.py target/release/recoup [--rounds 3] [--seconds 5] [--connections 1,16,64,256] [--only recoup,log]
                      [--rates 4000,12000] [--into docs/PERFORMANCE.md]

Runs the do-nothing handler, the append log with one flush for a group, recoup, the straightforward pool, Fastify with better-sqlite3
and Flask in turn on the same machine, under wrk (apt-get install wrk); prints medians, spread and ratios. Every webhook tells of
another generation: recoup does its whole work for each. What the Node and Python peers need is fetched into target/peers. With --rates
the log and recoup are also measured at fixed rates, by oha (cargo install oha).
"""
import argparse, glob, json, os, shutil, socket, statistics, subprocess, sys, tempfile, time

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from common import LUA, at_rate, bodies, callback_path, environment, flush_ms, free_port, memory_mb, publish, stop, wrk

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("binary")
parser.add_argument("--rounds", type=int, default=3)
parser.add_argument("--seconds", type=int, default=5)
parser.add_argument("--connections", default="1,16,64,256")
parser.add_argument("--only", default="nothing,log,recoup,pool,fastify,flask")
parser.add_argument("--rates", default="")
parser.add_argument("--into")
options = parser.parse_args()
BINARY = os.path.abspath(options.binary)
ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
PEERS = os.path.join(ROOT, "target", "peers")
NAMES = {
    "nothing": "a handler that does nothing", "log": "append log, one flush for a group", "recoup": "recoup",
    "pool": "axum with an sqlx pool, one transaction each", "fastify": "Fastify with better-sqlite3", "flask": "Flask under gunicorn",
}


def peers():
    """The peers' own programs, built or fetched once."""
    built = subprocess.run(["cargo", "build", "--release", "--locked", "--bench", "peers", "--message-format", "json"],
                           cwd=ROOT, check=True, stdout=subprocess.PIPE, text=True).stdout
    rust = [json.loads(line).get("executable") for line in built.splitlines() if '"name":"peers"' in line]
    os.makedirs(PEERS, exist_ok=True)
    if "fastify" in options.only and not os.path.exists(os.path.join(PEERS, "node_modules", "better-sqlite3")):
        subprocess.run(["npm", "install", "--no-fund", "--no-audit", "--prefix", PEERS, "fastify@5", "better-sqlite3@12"], check=True)
    if "flask" in options.only and not os.path.exists(os.path.join(PEERS, "venv", "bin", "gunicorn")):
        subprocess.run([sys.executable, "-m", "venv", os.path.join(PEERS, "venv")], check=True)
        subprocess.run([os.path.join(PEERS, "venv", "bin", "pip"), "install", "-q", "flask==3.*", "gunicorn==23.*"], check=True)
    for name in ("fastify.mjs", "flask_app.py"):
        shutil.copy(os.path.join(ROOT, "benches", "peers", name), PEERS)
    return next(executable for executable in rust if executable)


def start(which, folder, port, rust):
    """The process, and the path that webhooks go to."""
    if which == "recoup":
        path = callback_path(BINARY, folder, port)
        return subprocess.Popen([BINARY, "serve"], cwd=folder, env=environment(port)), path
    if which == "fastify":
        return subprocess.Popen(["node", os.path.join(PEERS, "fastify.mjs"), str(port)], cwd=folder), "/webhooks/x"
    if which == "flask":
        gunicorn = os.path.join(PEERS, "venv", "bin", "gunicorn")
        return subprocess.Popen([gunicorn, "--pythonpath", PEERS, "-w", "2", "-k", "gthread", "--threads", "4", "--log-level", "error",
                                 "-b", f"127.0.0.1:{port}", "flask_app:app"], cwd=folder), "/webhooks/x"
    return subprocess.Popen([rust, which, str(port)], cwd=folder), "/webhooks/x"


def ready(port, process):
    while True:
        if process.poll() is not None:
            raise SystemExit(f"{process.args} ended")
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
            return
        except OSError:
            time.sleep(0.02)


rust = peers()
every = [int(connections) for connections in options.connections.split(",")]
which = options.only.split(",")
fixed = [int(rate) for rate in options.rates.split(",") if rate]
rates = {(one, connections): [] for one in which for connections in every}
paced = {(one, rate): [] for one in ("log", "recoup") for rate in fixed}
peak, wal, flushes = {}, {}, []
with tempfile.TemporaryDirectory() as script_folder:
    script = os.path.join(script_folder, "webhooks.lua")
    with open(script, "w") as file:
        file.write(LUA)
    lines = os.path.join(script_folder, "bodies.txt")
    bodies(lines, 20 * options.seconds * max(fixed, default=0))
    for nth in range(options.rounds):
        for one in which:
            with tempfile.TemporaryDirectory(dir=os.path.join(ROOT, "target")) as folder:
                flushes.append(flush_ms(folder))
                port = free_port()
                process, path = start(one, folder, port, rust)
                try:
                    ready(port, process)
                    wrk(port, path, 16, 1, script, nth * 10_000)
                    for connections in every:
                        rates[one, connections].append(wrk(port, path, connections, options.seconds, script, nth * 10_000 + connections)[:3])
                    for rate in fixed if one in ("log", "recoup") else []:
                        paced[one, rate].append(at_rate(port, path, rate, options.seconds, lines))
                    peak[one] = max(peak.get(one, 0), memory_mb(process, "VmHWM"))
                    sizes = [os.path.getsize(name) for name in glob.glob(os.path.join(folder, "*-wal")) + glob.glob(os.path.join(folder, "*/*-wal"))]
                    wal[one] = max([wal.get(one, 0)] + [size / 2**20 for size in sizes])
                finally:
                    stop(process)

report = []
for connections in every:
    report.append(f"| {connections} connections | a second | of the log | p50 ms | p99 ms |\n|---|---|---|---|---|")
    median = lambda one: statistics.median(rate for rate, _, _ in rates[one, connections])
    for one in which:
        all_rates = [rate for rate, _, _ in rates[one, connections]]
        of_log = f"{median(one) / median('log'):.2f}" if "log" in which else ""
        p50, p99 = (statistics.median(run[place] for run in rates[one, connections]) for place in (1, 2))
        report.append(f"| {NAMES[one]} | {median(one):,.0f} ({min(all_rates):,.0f}-{max(all_rates):,.0f}) | {of_log} | {p50:.2f} | {p99:.2f} |")
    report.append("")
if fixed:
    flush = statistics.median(flushes)
    report.append("| at a fixed rate | a second | p50 ms (flushes) | p99 ms (flushes) |\n|---|---|---|---|")
    for (one, rate), runs in paced.items():
        p50, p99 = (statistics.median(run[place] for run in runs) for place in (0, 1))
        report.append(f"| {NAMES[one]} | {rate:,} | {p50:.2f} ({p50 / flush:.0f}) | {p99:.2f} ({p99 / flush:.0f}) |")
    report.append("")
if "recoup" in which:
    report.append(f"One flush: {statistics.median(flushes):.2f} ms in the median. recoup's peak: {peak['recoup']:.0f} MB resident; its log file in the end: "
                  f"{wal['recoup']:.0f} MB. {options.rounds} rounds of {options.seconds} s, medians, lowest and highest.")
publish("ingest", "\n".join(report), options.into)
