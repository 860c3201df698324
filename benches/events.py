#!/usr/bin/env python3
"""How long after its commit an outcome reaches a healthy endpoint while another hangs and a third answers 500.

    benches/events.py target/release/recoup [OUTCOMES_PER_SECOND] [SECONDS]

Settles outcomes through webhooks at a steady rate and records when each arrives; prints the latency from the answered webhook to
the arrival.
"""
import asyncio, json, os, signal, socket, subprocess, sys, tempfile, time

binary = os.path.abspath(sys.argv[1])
rate, seconds = int(sys.argv[2]) if len(sys.argv) > 2 else 500, int(sys.argv[3]) if len(sys.argv) > 3 else 10
KEY, SECRET = "a key of the benchmark", "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
arrived, answered, ids = {}, {}, {"healthy": set()}


async def request(reader):
    head = (await reader.readuntil(b"\r\n\r\n")).decode()
    length = next((int(line.split(":")[1]) for line in head.split("\r\n") if line.lower().startswith("content-length:")), 0)
    return head, await reader.readexactly(length)


def endpoint(kind):
    async def serve(reader, writer):
        try:
            while True:
                head, body = await request(reader)
                if kind == "hanging":
                    await asyncio.sleep(3600)
                if kind == "healthy":
                    name = json.loads(body)["data"]["generation_id"]
                    arrived.setdefault(name, time.perf_counter())
                    ids["healthy"].add(next(line for line in head.split("\r\n") if line.lower().startswith("webhook-id")))
                status = b"HTTP/1.1 200 OK" if kind == "healthy" else b"HTTP/1.1 500 No"
                writer.write(status + b"\r\ncontent-length: 0\r\n\r\n")
        except (asyncio.IncompleteReadError, ConnectionError, asyncio.CancelledError):
            pass
        finally:
            writer.close()
    return serve


class Client:
    async def open(self, port):
        self.reader, self.writer = await asyncio.open_connection("127.0.0.1", port)
        return self

    async def post(self, path, body):
        data = json.dumps(body).encode()
        self.writer.write(f"POST {path} HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {KEY}\r\ncontent-length: {len(data)}\r\n\r\n".encode() + data)
        head, answer = await request(self.reader)
        assert head.split()[1] in ("200", "201"), head
        return json.loads(answer)


async def main():
    servers = {kind: await asyncio.start_server(endpoint(kind), "127.0.0.1", 0) for kind in ("hanging", "broken", "healthy")}
    urls = {kind: f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/" for kind, server in servers.items()}
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    folder = tempfile.TemporaryDirectory()
    with open(os.path.join(folder.name, "config.toml"), "w") as config:
        config.write("[events]\nallow_private_addresses = true\n")
        for url in urls.values():
            config.write(f'[[events.endpoints]]\nurl = "{url}"\nsecret = "{SECRET}"\n')
    service = subprocess.Popen([binary, "serve"], cwd=folder.name, env={
        "RECOUP_PROVIDER__API_KEY": "none", "RECOUP_PROVIDER__BASE_URL": "http://127.0.0.1:1", "RECOUP_API__KEY": KEY,
        "RECOUP_WEBHOOK__SECRETS": "a secret of the benchmark", "RECOUP_SERVER__LISTEN": f"127.0.0.1:{port}",
        "RECOUP_SERVER__PUBLIC_URL": f"http://127.0.0.1:{port}", "RECOUP_LOG__LEVEL": "off",
    })
    while True:
        try:
            clients = [await Client().open(port) for _ in range(32)]
            break
        except OSError:
            await asyncio.sleep(0.05)
    total, paths = rate * seconds, []

    async def prepare(client, share):
        for _ in range(share):
            url = (await client.post("/v1/generations", {}))["callback_url"]
            paths.append(url.split(f":{port}")[1])
    await asyncio.gather(*(prepare(client, total // 32 + 1) for client in clients))
    start = time.perf_counter()

    async def settle(client, first):
        for n in range(first, total, 32):
            await asyncio.sleep(max(0, start + n / rate - time.perf_counter()))
            await client.post(paths[n], {"generation_id": f"p-{n}", "status": "completed", "video_url": "https://x/v.mp4"})
            answered[f"p-{n}"] = time.perf_counter()
    await asyncio.gather(*(settle(client, n) for n, client in enumerate(clients)))
    took = time.perf_counter() - start
    for _ in range(300):
        if len(arrived) == total:
            break
        await asyncio.sleep(0.1)
    lags = sorted((arrived[name] - answered[name]) * 1000 for name in arrived)
    at = lambda part: lags[min(len(lags) - 1, int(len(lags) * part))]
    print(f"{total} outcomes in {took:.1f} s ({total / took:.0f} a second), {len(arrived)} arrived under {len(ids['healthy'])} event ids")
    print(f"from the answered webhook to the arrival: median {at(.5):.1f} ms, p99 {at(.99):.1f} ms, worst {lags[-1]:.1f} ms")
    service.send_signal(signal.SIGTERM)
    for server in servers.values():
        server.close()
    print("exit", await asyncio.to_thread(service.wait, 60))

asyncio.run(main())
