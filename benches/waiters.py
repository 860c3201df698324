#!/usr/bin/env python3
"""What thousands of waiters and a reader that does not read cost in memory.

    benches/waiters.py target/release/recoup [WAITERS]

Opens WAITERS requests of `?wait=60`, each on a connection and a generation of its own; then settles them all and sees every one
answered. Beside them a stream reader connects and reads nothing while all these events arise. Prints the resident memory of the
service at each step.
"""
import asyncio, json, os, signal, socket, subprocess, sys, tempfile, time

binary, waiters = os.path.abspath(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else 5000
KEY = "a key of the benchmark"


async def answer(reader):
    head = (await reader.readuntil(b"\r\n\r\n")).decode()
    length = next(int(line.split(":")[1]) for line in head.split("\r\n") if line.lower().startswith("content-length:"))
    body = await reader.readexactly(length)
    assert head.split()[1] in ("200", "201"), head
    return json.loads(body)


def request(method, path, body=b""):
    return f"{method} {path} HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {KEY}\r\ncontent-length: {len(body)}\r\n\r\n".encode() + body


async def main():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    folder = tempfile.TemporaryDirectory()
    service = subprocess.Popen([binary, "serve"], cwd=folder.name, env={
        "RECOUP_PROVIDER__API_KEY": "none", "RECOUP_PROVIDER__BASE_URL": "http://127.0.0.1:1", "RECOUP_API__KEY": KEY,
        "RECOUP_WEBHOOK__SECRETS": "a secret of the benchmark", "RECOUP_SERVER__LISTEN": f"127.0.0.1:{port}",
        "RECOUP_SERVER__PUBLIC_URL": f"http://127.0.0.1:{port}", "RECOUP_LOG__LEVEL": "off",
        "RECOUP_SERVER__MAX_CONNECTIONS": str(waiters + 100),
    })

    def rss_kb():
        with open(f"/proc/{service.pid}/status") as status:
            return next(int(line.split()[1]) for line in status if line.startswith("VmRSS"))

    while True:
        try:
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            break
        except OSError:
            await asyncio.sleep(0.05)
    paths, ids = [], []
    for _ in range(waiters):
        writer.write(request("POST", "/v1/generations", b"{}"))
        prepared = await answer(reader)
        paths.append(prepared["callback_url"].split(f":{port}")[1])
        ids.append(prepared["id"])
    before = rss_kb()
    # A reader that does not read: its receive buffer is as small as can be.
    slow = socket.socket()
    slow.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2048)
    slow.connect(("127.0.0.1", port))
    slow.sendall(request("GET", "/v1/events/stream"))
    plain = []
    for _ in ids:
        plain.append(await asyncio.open_connection("127.0.0.1", port))
        # So that the connection is known as one that speaks.
        plain[-1][1].write(request("GET", "/livez"))
        await plain[-1][0].readuntil(b"\r\n\r\n")
    connected = rss_kb()
    for (_, out), id in zip(plain, ids):
        out.write(request("GET", f"/v1/generations/{id}?wait=60"))
    await asyncio.sleep(2)
    waiting = rss_kb()
    print(f"{before / 1024:.1f} MB before, {connected / 1024:.1f} MB with {waiters} connections, {waiting / 1024:.1f} MB with as many waiters:"
          f" {(connected - before) / waiters:.1f} kB a connection, {(waiting - connected) / waiters:.1f} kB more a waiter")
    answered = [0.0] * waiters
    settled = [0.0] * waiters

    async def wait(n):
        inward = plain[n][0]
        rest = b""
        while b"gen_" not in rest or not rest.rstrip().endswith(b"}"):
            rest += await inward.read(65536)
        answered[n] = time.perf_counter()
        assert b'"completed"' in rest, rest
    tasks = [asyncio.create_task(wait(n)) for n in range(waiters)]
    for n, path in enumerate(paths):
        body = {"generation_id": f"p-{n}", "status": "completed", "video_url": "https://x/v.mp4"}
        writer.write(request("POST", path, json.dumps(body).encode()))
        await answer(reader)
        settled[n] = time.perf_counter()
    await asyncio.gather(*tasks)
    lags = sorted((answer - settle) * 1000 for answer, settle in zip(answered, settled))
    print(f"answered behind their outcome's own 200: median {lags[len(lags) // 2]:.1f} ms, worst {lags[-1]:.1f} ms")
    print(f"{rss_kb() / 1024:.1f} MB after {waiters} events that one reader of the stream has not read")
    service.send_signal(signal.SIGTERM)
    slow.close()
    print("exit", await asyncio.to_thread(service.wait, 60))

asyncio.run(main())
