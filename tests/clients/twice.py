"""Nothing is bought twice: purchases whose answers get lost, are cut, come late or are 4xx and 5xx, through recoup, which is killed in
between, by the provider's own client and by two like the public bots, which repeat whatever fails. The oracle is the sandbox's ledger.

    twice.py --calls 1000 --kills 20 --rate 5                  where a webhook or a list tells what became of a purchase
    twice.py --calls 1000 --kills 20 --rate 5 --lists absent   where there are no lists: of some nobody is told anything

Prints what was, one line for each thing that may not be, and ends with 1 where there is one.
"""
import argparse, asyncio, collections, contextlib, dataclasses, http.client, pathlib, random, sys, time

import httpx
from runblob import RunBlob
from runblob._errors import APIConnectionError, RunBlobError

from processes import API_KEY, PROVIDER_KEY, Sandbox, Service, call, folder

# What becomes of the answer to the first purchase with a prompt, and of its webhook. Where that is lost too, only a list tells.
TELLING = [
    "", "lose",
    "answer=lost", "answer=lost lose takes=6", "answer=lost times=2",
    "answer=cut", "answer=cut lose takes=6", "twin answer=cut times=2 lose takes=6",
    "answer-after=2", "answer-after=2 answer=504",
    "answer=500", "answer=502", "answer=503", "answer=504", "answer=504 times=3", "answer=500 lose takes=6", "answer=408",
    "answer=429 retry-after=1", "answer=429 times=2",
    "4xx answer=400 unsold", "4xx answer=402 unsold", "4xx answer=422 unsold",
]
# Where there are no lists.
SILENT = [
    "", "lose", "answer=cut takes=2.5", "answer=500 takes=2.5",
    "untold answer=cut lose", "untold answer=500 lose", "untold answer=504 lose", "untold answer=408 lose",
    "untold answer=500 unsold", "untold answer=503 unsold", "untold answer=cut unsold",
]
# What takes too long for every day.
SLOW = {
    True: ["answer-after=60", "answer-after=115", "answer-after=115 lose", "answer-after=115 answer=504", "answer-after=30 answer=cut lose takes=40"],
    False: ["untold answer-after=55 lose", "answer-after=115", "untold answer-after=115 answer=504 lose", "untold answer=lost lose"],
}
# Words of ours among the directions: somebody else buys the same prompt in another length; the client does not repeat it, so only the bots
# buy it; nobody is told what became of it.
OURS = ("twin", "4xx", "untold")
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


class Refused(Exception):
    """All tries of a bot failed; `cut`: how many of them because the connection broke or was refused, as a kill does it."""

    def __init__(self, repeats, cut):
        super().__init__(f"{repeats} repeats failed, {cut} tries without a connection")
        self.cut = cut


async def client(base, prompt):
    """One call of the provider's own client, which repeats three times by itself, and waits 120 s for each answer."""
    # One for each call: after five failures its circuit breaker would send nothing for a minute.
    async with RunBlob(api_key=API_KEY, base_url=base) as runblob:
        return (await runblob.kling.generate_o3_video(prompt=prompt)).generation_id


async def repeat(base, prompt, repeats):
    """So many repeats after any failure, 4xx too, without a request id."""
    async with httpx.AsyncClient(timeout=60, headers={"Authorization": f"Bearer {API_KEY}"}) as bot:
        cut = 0
        for attempt in range(repeats + 1):
            await asyncio.sleep(0.3 * attempt)
            try:
                answer = await bot.post(f"{base}/v1/kling/o3-video/generate", json=body_of(prompt, "5"))
                if answer.status_code == 201:
                    return answer.json()["generation_id"]
            except httpx.TimeoutException:
                pass
            except httpx.HTTPError:
                cut += 1
    raise Refused(repeats, cut)


def body_of(prompt, duration):
    return {"prompt": prompt, "model": "kling_o3", "duration": duration}


async def three_repeats(base, prompt):
    return await repeat(base, prompt, 3)


async def four_repeats(base, prompt):
    return await repeat(base, prompt, 4)


BUYERS = [client, three_repeats, four_repeats]


@dataclasses.dataclass
class Call:
    """One purchase that somebody wants: how it is scripted, who makes it, and how that ended."""

    prompt: str
    words: list
    buyer: object
    returned: str | None = None
    raised: Exception | None = None
    took: float = 0.0

    @property
    def script(self):
        return " ".join(self.words)

    @property
    def is_sold(self):
        """The provider sells it, the first time or when it is sent again after a refusal."""
        return "unsold" not in self.words or "4xx" in self.words

    def is_broken_off(self, kills):
        """The provider's own client does not repeat where the connection breaks before an answer, as a kill breaks it; of a bot's few
        tries a restart that takes longer than they last uses up what is left."""
        was_cut = isinstance(self.raised, Refused) and self.raised.cut > 0
        return kills > 0 and (was_cut or isinstance(self.raised, APIConnectionError))

    def must_return(self, kills):
        """A webhook, a list or the provider's own answer tells what it bought within its retries."""
        return self.is_sold and "untold" not in self.words and not self.is_broken_off(kills)


def calls_of(wanted, scripts, is_quick, chance):
    """So many calls: every script by every buyer that it is for, again and again."""
    kinds = [(script.split(), buyer) for script in scripts for buyer in BUYERS]
    # What the client's own repeats would take a minute for is left to a bot of three repeats where there is little time.
    kinds = [(words, buyer) for words, buyer in kinds if not (buyer is client and "4xx" in words)
             and not (is_quick and "untold" in words and buyer is not three_repeats)]
    calls = []
    for number in range(wanted or len(kinds)):
        words, buyer = kinds[number % len(kinds)]
        directions = " ".join(word for word in words if word not in OURS)
        prompt = f"a paper boat, number {number}" + (f" [sandbox: {directions}]" if directions else "")
        calls.append(Call(prompt, words, buyer))
    chance.shuffle(calls)
    return calls


class Run:
    """All calls, the provider's ledger and recoup's records, and what may not be."""

    def __init__(self, arguments, sandbox, service, outages):
        self.arguments, self.sandbox, self.service, self.outages = arguments, sandbox, service, outages
        self.chance = random.Random(arguments.seed)
        is_told = arguments.lists != "absent"
        scripts = (TELLING if is_told else SILENT) + (SLOW[is_told] if arguments.slow else [])
        self.calls = calls_of(arguments.calls, scripts, arguments.quick, self.chance)
        self.others = set()

    def ledger(self):
        """What was bought through recoup, by its prompt."""
        sold = {}
        for bought in self.sandbox.ledger():
            if bought["id"] not in self.others:
                sold.setdefault(bought["prompt"], []).append(bought)
        return sold

    def buy_twins(self):
        """Somebody else, with the provider's own key, buys the same in another length. The answers are cut."""
        for one in self.calls:
            if "twin" in one.words:
                with contextlib.suppress(OSError, http.client.HTTPException):
                    call(f"{self.sandbox.url}/v1/kling/o3-video/generate", body_of(one.prompt, "10"), PROVIDER_KEY)
        self.others = {bought["id"] for bought in self.sandbox.ledger()}

    async def make(self):
        """Makes all calls; where a wrong one is to end it, only until then."""
        waiting = asyncio.Semaphore(self.arguments.concurrency)
        began = time.monotonic()

        async def one(number, call):
            if self.arguments.rate:
                await asyncio.sleep(number / self.arguments.rate)
            async with waiting:
                started = time.monotonic()
                try:
                    call.returned = await call.buyer(f"{self.service.url}/gateway", call.prompt)
                except (RunBlobError, Refused, httpx.HTTPError) as error:
                    call.raised = error
                call.took = time.monotonic() - started

        making = asyncio.gather(*[one(number, call) for number, call in enumerate(self.calls)])
        while not making.done():
            await asyncio.wait([making], timeout=0.5)
            is_late = self.arguments.deadline and time.monotonic() - began > self.arguments.deadline
            if is_late or (self.arguments.quick and await asyncio.to_thread(self.first_wrong)):
                making.cancel()
                break
        with contextlib.suppress(asyncio.CancelledError):
            await making

    def over(self):
        return sum(call.returned is not None or call.raised is not None for call in self.calls)

    async def disturb(self):
        """Kills recoup and breaks the way to the provider, evenly over the run."""
        total, kills, times = len(self.calls), self.arguments.kills, self.arguments.outages
        moments = [(total * (n + 1) // (kills + 1), "kill") for n in range(kills)] + [(total * (2 * n + 1) // (2 * times), "outage") for n in range(times)]
        for moment, what in sorted(moments):
            while self.over() < moment:
                await asyncio.sleep(0.02)
            if what == "kill":
                self.service.kill()
                await asyncio.to_thread(self.service.start)
            else:
                self.outages.down()
                await asyncio.sleep(0.7)
                await self.outages.up()

    def first_wrong(self):
        """What can be told before all is over."""
        sold = self.ledger()
        return [line for call in self.calls for line in self.wrongs_of(call, sold.get(call.prompt, []))]

    def wrongs_of(self, call, bought):
        """What may not be of one call, whatever recoup says of it."""
        about = f"{call.prompt!r} by {call.buyer.__name__}"
        ids = [one["id"] for one in bought]
        if len(bought) > 1:
            yield f"bought {len(bought)} times: {about}, request ids {[one['request_id'] for one in bought]}"
        if call.returned and call.returned not in ids:
            yield f"returned {call.returned}, which it did not buy: {about}"
        if call.raised and bought and call.must_return(self.arguments.kills):
            yield f"raised {type(call.raised).__name__} though it was sold and that was told: {about}"
        if call.raised and not bought and call.is_sold and not self.arguments.kills and not self.arguments.outages:
            yield f"never bought, raised {type(call.raised).__name__}: {about}"

    def settle(self):
        """Waits until recoup knows all that was sold or shows it as unconfirmed, or as long as told; its records by prompt."""
        until = time.monotonic() + self.arguments.settle
        while True:
            records = {}
            for record in self.service.all(""):
                records.setdefault(record["prompt"], []).append(record)
            sold = self.ledger()
            open_ones = [one for prompt, bought in sold.items() for one in bought if not is_known(one, records) and not is_unconfirmed(prompt, records)]
            if not open_ones or time.monotonic() > until:
                return sold, records
            time.sleep(0.5)

    def judge(self, sold, records):
        """What may never be, one line each."""
        wrong = []
        for call in self.calls:
            bought, about = sold.get(call.prompt, []), f"{call.prompt!r} by {call.buyer.__name__}"
            wrong += self.wrongs_of(call, bought)
            # A refusal that a kill took away is one that nobody can know of.
            if call.returned is None and call.raised is None and (bought or not is_unconfirmed(call.prompt, records)):
                wrong.append(f"still not over: {about}")
            own_ids = {record["id"] for record in records.get(call.prompt, [])}
            for one in bought:
                if one["idempotency_key"] not in own_ids:
                    wrong.append(f"sent under the key {one['idempotency_key']}, which is none of {own_ids}: {about}")
                if not is_known(one, records) and not is_unconfirmed(call.prompt, records):
                    wrong.append(f"neither known nor unconfirmed: {one['id']} {about}")
            # What was never sold may have been for all that recoup knows.
            is_broken_off = call.is_broken_off(self.arguments.kills)
            if call.raised and not bought and own_ids and not is_broken_off and not is_unconfirmed(call.prompt, records):
                wrong.append(f"never bought, and not unconfirmed: {about}, raised {type(call.raised).__name__}")
        return wrong

    def tell(self, sold, records):
        """What was, in numbers."""
        bought = sum(bool(sold.get(call.prompt)) for call in self.calls)
        twice = sum(len(one) > 1 for one in sold.values())
        unsold = [call for call in self.calls if not call.is_sold]
        unknown = sum(not is_known(one, records) and not is_unconfirmed(prompt, records) for prompt, several in sold.items() for one in several)
        returned = sum(call.returned in [one["id"] for one in sold.get(call.prompt, [])] for call in self.calls)
        raised = [call for call in self.calls if call.raised]
        unconfirmed = sum(is_unconfirmed(call.prompt, records) for call in raised)
        found = sum(any(is_known(one, records) for one in sold.get(call.prompt, [])) for call in raised)
        print("slowest:", ", ".join(f"{call.took:.0f} s {call.script!r} {call.buyer.__name__}" for call in sorted(self.calls, key=lambda call: -call.took)[:5]))
        print("raised:", dict(collections.Counter(f"{call.script} {call.buyer.__name__} {type(call.raised).__name__}" for call in raised)))
        print("never bought though it was to be:", [call.script for call in self.calls if call.is_sold and not sold.get(call.prompt)])
        never = f", {len(unsold)} that the provider did not sell" if unsold else ""
        print(f"FIGURES {len(self.calls):,} calls, {self.arguments.kills} kills: {bought:,} bought{never}, {twice} twice, {unknown} unknown; {returned:,} returned the id,"
              f" {len(raised)} raised: {unconfirmed} unconfirmed, {found} found since")


def is_known(bought, records):
    return any(record["generation_id"] == bought["id"] for record in records.get(bought["prompt"], []))


def is_unconfirmed(prompt, records):
    return any(record["status"] == "unconfirmed" and record["attention"] == "unconfirmed" for record in records.get(prompt, []))


async def main(arguments):
    with folder() as where:
        sandbox = Sandbox(where, "--speed", "100", "--lists", arguments.lists)
        outages = Outages(sandbox.port)
        await outages.up()
        service = Service(where, f"http://127.0.0.1:{outages.port}", f'{EXPECTED}[gateway]\nrepeat_wait = "{arguments.repeat_wait}"\n')
        try:
            run = Run(arguments, sandbox, service, outages)
            await asyncio.to_thread(run.buy_twins)
            disturbing = asyncio.create_task(run.disturb())
            began = time.monotonic()
            await run.make()
            if run.over() < len(run.calls):
                disturbing.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await disturbing
            print(f"{time.monotonic() - began:.0f} s, {arguments.kills} kills, {arguments.outages} outages, lists: {arguments.lists}")
            wrong = arguments.quick and await asyncio.to_thread(run.first_wrong)
            if not wrong:
                sold, records = await asyncio.to_thread(run.settle)
                wrong = run.judge(sold, records)
                run.tell(sold, records)
        finally:
            service.stop()
            sandbox.stop()
            outages.down()
            # For whoever looks at what went wrong.
            log = pathlib.Path(where, "recoup.log").read_text()
            print("\n".join(line for line in log.splitlines() if " ERROR " in line or "panicked" in line)[:2_000], end="")
    for line in wrong[:20]:
        print(f"FAILED  {line}")
    print(f"{'FAILED' if wrong else 'ok':7} nothing is bought twice, nothing is unknown, whoever can be told is ({len(wrong)} wrong)")
    return 1 if wrong else 0


parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("--calls", type=int, default=0, help="0: each script once by each buyer")
parser.add_argument("--concurrency", type=int, default=400)
parser.add_argument("--rate", type=float, default=0, help="calls begun in a second; 0: all at once")
parser.add_argument("--kills", type=int, default=1, help="kill -9 of recoup in between")
parser.add_argument("--outages", type=int, default=0, help="the provider cannot be reached for a moment")
parser.add_argument("--lists", default="all_kling", help="which lists the provider has: absent, own, all_kling, everywhere")
parser.add_argument("--slow", action="store_true", help="answers that take up to two minutes, too")
parser.add_argument("--quick", action="store_true", help="leaves out what takes a minute, and ends at the first thing that is wrong")
parser.add_argument("--deadline", type=float, default=0, help="what is not over after so many seconds is wrong; 0: none")
parser.add_argument("--repeat-wait", default="100s", help="how long a repeat is held")
parser.add_argument("--settle", type=float, default=60, help="seconds for recoup to find the rest")
parser.add_argument("--seed", type=int, default=1)
sys.exit(asyncio.run(main(parser.parse_args())))
