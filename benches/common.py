"""What the benchmarks share: the binary's environment, webhooks for wrk, and what wrk and the kernel report."""
import os, re, signal, socket, subprocess

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


def free_port():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


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
