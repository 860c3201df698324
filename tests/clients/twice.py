"""Nothing is bought twice: purchases whose answers get lost, are cut, come late or are 5xx, through recoup and at times without it or
without the provider, by the provider's own client and by one that repeats whatever fails. The oracle is the sandbox's ledger.

    twice.py --calls 1000 --kills 20
"""
import argparse, asyncio, collections, contextlib, pathlib, random, sys, time

import httpx
from runblob import RunBlob
from runblob._errors import RunBlobError

from processes import API_KEY, Sandbox, Service, folder

# What becomes of the answer to the first purchase with a prompt. What the provider sells is found by its webhook, or where that is
# lost, by its list alone; of what it does not sell only the caller is told nothing.
SCRIPTS = [
    "", "", "lose",
    "answer=lost", "answer=lost lose", "answer=lost times=2",
    "answer=cut", "answer=cut lose",
    "answer-after=3", "answer-after=8", "answer-after=3 answer=504",
    "answer=500", "answer=502", "answer=503", "answer=504", "answer=504 times=3", "answer=500 lose", "answer=408",
    "answer=429 retry-after=1", "answer=429 times=2",
    "answer=500 unsold", "answer=503 unsold", "answer=cut unsold",
]
# As the sandbox makes things at its speed.
EXPECTED = """
[reconcile]
grace = "500ms"
webhook_retry_window = "3s"
[expected."kling/o3-video"]
kling_o3 = { "5" = ["500ms", "2s"] }
"""


class Outages:
    """Stands between recoup and the provider; while it is down, connections are refused and those that are open break."""

    def __init__(self, target):
        self.target, self.writers, self.server = target, set(), None

    async def up(self):
        port = self.port if self.server else 0
        self.server = await asyncio.start_server(self.serve, "127.0.0.1", port)
        self.port = self.server.sockets[0].getsockname()[1]

    def down(self):
        self.server.close()
        for writer in self.writers:
            writer.transport.abort()

    async def serve(self, reader, writer):
        self.writers.add(writer)
        try:
            out_reader, out_writer = await asyncio.open_connection("127.0.0.1", self.target)
            self.writers.add(out_writer)
            await asyncio.gather(self.pump(reader, out_writer), self.pump(out_reader, writer))
        except (OSError, asyncio.CancelledError):
            writer.transport.abort()

    async def pump(self, reader, writer):
        with contextlib.suppress(OSError):
            while piece := await reader.read(65_536):
                writer.write(piece)
                await writer.drain()
        self.writers.discard(writer)
        writer.close()


async def as_the_client(base, prompt):
    """One call of the provider's own client, which repeats by itself."""
    # One for each call: after five failures its circuit breaker would send nothing for a minute.
    async with RunBlob(api_key=API_KEY, base_url=base) as client:
        return (await client.kling.generate_o3_video(prompt=prompt)).generation_id


async def as_a_bot(base, prompt):
    """Four tries after any failure, 4xx too, without a request id."""
    async with httpx.AsyncClient(timeout=60, headers={"Authorization": f"Bearer {API_KEY}"}) as http:
        for attempt in range(4):
            with contextlib.suppress(httpx.HTTPError):
                answer = await http.post(f"{base}/v1/kling/o3-video/generate", json={"prompt": prompt, "model": "kling_o3", "duration": "5"})
                if answer.status_code == 201:
                    return answer.json()["generation_id"]
            await asyncio.sleep(1 + attempt)
    raise RunBlobError("four tries failed")


class Calls:
    """All calls and what they returned."""

    def __init__(self, wanted, chance):
        self.returned, self.raised, self.scripts, self.buyers, self.took = {}, {}, {}, {}, {}
        for number in range(wanted):
            prompt = f"a paper boat, number {number} [sandbox: {SCRIPTS[number % len(SCRIPTS)]}]".replace(" [sandbox: ]", "")
            self.scripts[prompt] = SCRIPTS[number % len(SCRIPTS)]
            self.buyers[prompt] = (as_the_client, as_a_bot)[number // len(SCRIPTS) % 2] if wanted > len(SCRIPTS) else as_the_client
        self.order = list(self.scripts)
        chance.shuffle(self.order)

    async def make(self, base, concurrency):
        waiting = asyncio.Semaphore(concurrency)

        async def one(prompt):
            async with waiting:
                began = time.monotonic()
                try:
                    self.returned[prompt] = await self.buyers[prompt](base, prompt)
                except (RunBlobError, httpx.HTTPError) as error:
                    self.raised[prompt] = error
                self.took[prompt] = time.monotonic() - began

        await asyncio.gather(*[one(prompt) for prompt in self.order])

    @property
    def over(self):
        return len(self.returned) + len(self.raised)


async def disturb(calls, service, outages, kills, times):
    """Kills recoup and breaks the way to the provider, evenly over the run."""
    total = len(calls.order)
    moments = sorted([(total * (n + 1) // (kills + 1), "kill") for n in range(kills)] + [(total * (2 * n + 1) // (2 * times), "outage") for n in range(times)])
    for moment, what in moments:
        while calls.over < moment:
            await asyncio.sleep(0.05)
        if what == "kill":
            service.kill()
            await asyncio.to_thread(service.start)
        else:
            outages.down()
            await asyncio.sleep(0.7)
            await outages.up()


def settle(sandbox, service, seconds):
    """Waits until recoup knows all that was sold, or for so long."""
    until = time.monotonic() + seconds
    while True:
        records = service.all("")
        known = {record["generation_id"] for record in records}
        unknown = [bought for bought in sandbox.ledger() if bought["id"] not in known]
        if not unknown or time.monotonic() > until:
            return records
        time.sleep(0.5)


def judge(calls, ledger, records):
    """What may never be, one line each; and what was, in numbers."""
    wrong = []
    sold = {prompt: [] for prompt in calls.order}
    for bought in ledger:
        sold[bought["prompt"]].append(bought)
    by_id = {record["generation_id"]: record for record in records if record["generation_id"]}
    unconfirmed = {record["prompt"] for record in records if record["status"] == "unconfirmed" and record["attention"] == "unconfirmed"}
    for prompt, bought in sold.items():
        if len(bought) > 1:
            by = calls.buyers[prompt].__name__
            wrong.append(f"{len(bought)} times: {prompt!r} {by}, request ids {[one['request_id'] for one in bought]}")
    unknown = [bought for bought in ledger if bought["id"] not in by_id]
    wrong += [f"neither known nor unconfirmed: {bought['id']} {bought['prompt']!r}" for bought in unknown if bought["prompt"] not in unconfirmed]
    for prompt, id in calls.returned.items():
        if id not in [bought["id"] for bought in sold[prompt]]:
            wrong.append(f"returned {id}, which was not bought for {prompt!r}")
    raised = [prompt for prompt in calls.raised if sold[prompt]]
    # What a webhook or a list tells within the client's own retries it returns: here both take seconds.
    if calls.is_calm:
        wrong += [f"raised {type(calls.raised[prompt]).__name__} though it became known: {prompt!r} {calls.buyers[prompt].__name__}"
                  for prompt in raised if sold[prompt][0]["id"] in by_id and "lose" not in calls.scripts[prompt].split()]
    print(f"{len(calls.order)} calls: {len(calls.returned)} returned an id, {len(calls.raised)} raised")
    print(f"{sum(bool(bought) for bought in sold.values())} bought, {sum(len(bought) > 1 for bought in sold.values())} of them twice,"
          f" {len(unknown)} unknown to recoup")
    print(f"{len(raised)} raised though sold, of them {sum(sold[prompt][0]['id'] in by_id for prompt in raised)} known by now:"
          f" {dict(collections.Counter(calls.scripts[prompt] for prompt in raised))}")
    idle = [prompt for prompt in calls.order if not sold[prompt]]
    print(f"{len(idle)} never bought: {dict(collections.Counter(calls.scripts[prompt] for prompt in idle))}")
    slowest = sorted(((calls.took[prompt], calls.scripts[prompt], calls.buyers[prompt].__name__) for prompt in calls.order), reverse=True)
    print("slowest:", ", ".join(f"{took:.0f} s {script!r} {buyer}" for took, script, buyer in slowest[:5]))
    # An unclear purchase is never sent again: what the provider did not sell stays unsold, and nothing else does.
    wrong += [f"never bought, {type(calls.raised[prompt]).__name__}: {prompt!r}" for prompt in idle if "unsold" not in calls.scripts[prompt] and prompt in calls.raised and calls.is_calm]
    return wrong


async def main(arguments):
    chance = random.Random(arguments.seed)
    calls = Calls(arguments.calls, chance)
    calls.is_calm = not arguments.kills and not arguments.outages
    with folder() as where:
        sandbox = Sandbox(where, "--speed", "100", "--lists", arguments.lists)
        outages = Outages(sandbox.port)
        await outages.up()
        service = Service(where, f"http://127.0.0.1:{outages.port}", EXPECTED, planted=arguments.planted)
        try:
            disturbing = asyncio.create_task(disturb(calls, service, outages, arguments.kills, arguments.outages))
            began = time.monotonic()
            await calls.make(f"{service.url}/gateway", arguments.concurrency)
            await disturbing
            print(f"{time.monotonic() - began:.0f} s, {arguments.kills} kills, {arguments.outages} outages, lists: {arguments.lists}")
            records = await asyncio.to_thread(settle, sandbox, service, arguments.settle)
            wrong = judge(calls, sandbox.ledger(), records)
        finally:
            service.stop()
            sandbox.stop()
            outages.down()
            # For whoever looks at what went wrong.
            log = pathlib.Path(where, "recoup.log").read_text()
            print("\n".join(line for line in log.splitlines() if " ERROR " in line or "panicked" in line)[:2_000], end="")
    if arguments.planted:
        caught = [line for line in wrong if " times: " in line]
        print(f"{'ok' if caught else 'FAILED':7} {arguments.planted} is caught: {caught[:1]}")
        return 0 if caught else 1
    for line in wrong[:20]:
        print(f"FAILED  {line}")
    print(f"{'FAILED' if wrong else 'ok':7} nothing is bought twice, nothing is unknown ({len(wrong)} wrong)")
    return 1 if wrong else 0


parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("--calls", type=int, default=40)
parser.add_argument("--concurrency", type=int, default=20)
parser.add_argument("--kills", type=int, default=1, help="kill -9 of recoup in between")
parser.add_argument("--outages", type=int, default=2, help="the provider cannot be reached for a moment")
parser.add_argument("--lists", default="all_kling", help="which lists the provider has: absent, own, all_kling, everywhere")
parser.add_argument("--settle", type=float, default=60, help="seconds for recoup to find the rest")
parser.add_argument("--planted", help="a fault of src/planted.rs that buys twice, which this must catch, in the binary that RECOUP_PLANTED_BINARY names (just planted)")
parser.add_argument("--seed", type=int, default=1)
sys.exit(asyncio.run(main(parser.parse_args())))
