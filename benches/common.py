"""What the benchmarks share: the binary's environment, webhooks for wrk and oha, what they and the kernel report, and where it is put."""
import itertools, os, random, re, signal, socket, subprocess, tempfile, time, uuid

KEY = "a-key-of-the-benchmark"
SECRET = "a secret of the benchmark, long enough"
# Every webhook tells of another generation: random UUIDs, as the provider's are.
LUA = """
local thread_number = 0
function setup(thread) thread:set("number", thread_number); thread_number = thread_number + 1 end
function init(args) math.randomseed(tonumber(args[1]) * 16 + number) end
local form = '{"generation_id":"%08x-%04x-4%03x-a%03x-%06x%06x","status":"completed","video_url":"https://cdn.example/videos/%08x%08x%08x.mp4","model":"kling_o3","message":null}'
function request()
  local r = math.random
  local body = string.format(form, r(0, 2^31), r(0, 65535), r(0, 4095), r(0, 4095), r(0, 2^24 - 1), r(0, 2^24 - 1), r(0, 2^31), r(0, 2^31), r(0, 2^31))
  return wrk.format("POST", nil, {["content-type"] = "application/json"}, body)
end
"""


def free_port(ports=itertools.count(random.SystemRandom().randrange(22_000))):
    """A port below those the kernel gives to outgoing connections, another one each time: no client takes it before, or between two starts
    of, its server. Tried by calling, not by binding: a child that is being forked would hold it a little longer."""
    while True:
        port = 10_000 + next(ports) % 22_000
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)):
                return port


def environment(port):
    return {
        "PATH": os.environ["PATH"], "RECOUP_PROVIDER__API_KEY": "none", "RECOUP_PROVIDER__BASE_URL": "http://127.0.0.1:1",
        "RECOUP_API__KEY": KEY, "RECOUP_WEBHOOK__SECRETS": SECRET, "RECOUP_WEBHOOK__CONFIRM": "never",
        "RECOUP_SERVER__LISTEN": f"127.0.0.1:{port}", "RECOUP_SERVER__PUBLIC_URL": f"http://127.0.0.1:{port}", "RECOUP_LOG__LEVEL": "off",
    }


def callback_path(binary, folder, port):
    """The path of the standing URL, by which webhooks about any generation come."""
    url = subprocess.run([binary, "callback-url", "kling/o3-video"], cwd=folder, env=environment(port), check=True,
                         stdout=subprocess.PIPE, text=True).stdout
    return re.search(r"/webhooks/\S+", url).group()


def wrk(port, path, connections, seconds, script, seed):
    """Requests a second, the median and the 99th percentile in ms, and how many were answered; ends the program when one was not answered well."""
    threads = 1 if connections == 1 else 2
    output = subprocess.run(
        ["wrk", "-t", str(threads), "-c", str(connections), "-d", f"{seconds}s", "--timeout", "20s", "--latency", "-s", script,
         f"http://127.0.0.1:{port}{path}", "--", str(seed)], check=True, stdout=subprocess.PIPE, text=True).stdout
    if "Non-2xx" in output or "Socket errors" in output:
        raise SystemExit(f"not every request was answered well:\n{output}")
    answered = int(re.search(r"(\d+) requests in", output).group(1))
    return float(re.search(r"Requests/sec:\s+(\S+)", output).group(1)), percentile_ms(output, 50), percentile_ms(output, 99), answered


def percentile_ms(output, percent):
    text = re.search(rf"^\s+{percent}%\s+(\S+)\s*$", output, re.M).group(1)
    for unit, factor in (("us", 1e-3), ("ms", 1.0), ("s", 1e3)):
        if text.endswith(unit):
            return float(text.removesuffix(unit)) * factor
    raise ValueError(text)


def memory_mb(process, what):
    with open(f"/proc/{process.pid}/status") as status:
        return int(re.search(rf"{what}:\s+(\d+)", status.read()).group(1)) / 1024


def stop(process):
    process.send_signal(signal.SIGTERM)
    process.wait(60)


def flush_ms(folder):
    """What one fsync of an overwritten page takes, in the median: what latencies are multiples of."""
    times = []
    with tempfile.NamedTemporaryFile(dir=folder) as file:
        file.write(bytes(4096 * 64))
        for nth in range(1_000):
            os.pwrite(file.fileno(), os.urandom(4096), nth % 64 * 4096)
            began = time.perf_counter()
            os.fsync(file.fileno())
            times.append(time.perf_counter() - began)
    return sorted(times)[500] * 1e3


def bodies(file, count):
    """One webhook's body a line, for oha: it takes one at random each time, so there are to be far more than are sent."""
    with open(file, "w") as lines:
        for _ in range(count):
            theirs = uuid.UUID(int=random.getrandbits(128), version=4)
            lines.write(f'{{"generation_id":"{theirs}","status":"completed","video_url":"https://cdn.example/videos/{theirs.hex[:24]}.mp4",'
                        '"model":"kling_o3","message":null}\n')


def at_rate(port, path, rate, seconds, file):
    """Median and 99th percentile in ms at so many requests a second, counted from when each was to be sent."""
    output = subprocess.run(
        ["oha", "-q", str(rate), "-c", "64", "-z", f"{seconds}s", "--latency-correction", "--no-tui", "-m", "POST", "-T", "application/json",
         "-Z", file, f"http://127.0.0.1:{port}{path}"], check=True, stdout=subprocess.PIPE, text=True).stdout
    if set(re.findall(r"\[(\d+)\] \d+ responses", output)) != {"200"}:
        raise SystemExit(f"not every request was answered well:\n{output}")
    factor = {"ns": 1e-6, "us": 1e-3, "ms": 1.0, "sec": 1e3, "s": 1e3}
    found = [re.search(rf"{percent}\.00% in (\S+) (\w+)", output).groups() for percent in (50, 99)]
    return tuple(float(value) * factor[unit] for value, unit in found)


def publish(name, text, into):
    """Prints what was measured; with `into`, puts it between the marks of its name in that document."""
    print(text)
    if into:
        with open(into) as file:
            document = file.read()
        begin, end = f"<!-- {name}: begin -->\n", f"<!-- {name}: end -->"
        before, rest = document.split(begin)
        with open(into, "w") as file:
            file.write(before + begin + text + "\n" + end + rest.split(end)[1])
