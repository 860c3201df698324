"""The provider's own Python client, unmodified: at the sandbox, which proves that the sandbox fits it, and then through the gateway."""
import asyncio, json, sys

import httpx
from runblob import RunBlob
from runblob import _errors as errors
from runblob._webhook import parse_webhook_payload, verify_webhook_signature
from runblob.types.kling import KlingGenerateResponse

from processes import API_KEY, PROVIDER_KEY, WEBHOOK_SECRET, Listener, Proofs, Sandbox, Service, folder

IMAGE = "https://example.com/boat.png"
SPEED = 100
# How long things take at that speed, for recoup to expect them.
EXPECTED = """
[reconcile]
grace = "500ms"
webhook_retry_window = "3s"
[expected."kling/o3-video"]
kling_o3 = { "5" = ["500ms", "2s"] }
"""


class Side:
    """The sandbox or the gateway, and a client of it."""

    def __init__(self, base, key, sandbox, is_gateway, listener):
        self.base, self.key, self.sandbox, self.is_gateway, self.listener = base, key, sandbox, is_gateway, listener
        self.client = self.other()

    def other(self, **changed):
        return RunBlob(**{"api_key": self.key, "base_url": self.base, **changed})


def resources(client):
    """Name, purchase, status, whole wait, id field, result field: of everything that the client can buy."""
    kling = client.kling
    return [
        ("kling.generate", kling.generate, kling.get_status, kling.generate_and_wait, "generation_id", "video_url"),
        ("kling.generate_o1_video", kling.generate_o1_video, kling.get_o1_video_status, kling.generate_o1_video_and_wait, "generation_id", "video_url"),
        ("kling.generate_o3_video", kling.generate_o3_video, kling.get_o3_video_status, kling.generate_o3_video_and_wait, "generation_id", "video_url"),
        ("kling.generate_o1_photo", kling.generate_o1_photo, kling.get_o1_photo_status, kling.generate_o1_photo_and_wait, "generation_id", "image_url"),
        ("kling.generate_o3_photo", kling.generate_o3_photo, kling.get_o3_photo_status, kling.generate_o3_photo_and_wait, "generation_id", "image_url"),
        ("veo.generate", client.veo.generate, client.veo.get_status, client.veo.generate_and_wait, "generation_id", "video_url"),
        ("nanobanana.generate", client.nanobanana.generate, client.nanobanana.get_status, client.nanobanana.generate_and_wait, "task_uuid", "result_image_url"),
        ("chatgpt.generate", client.chatgpt.generate, client.chatgpt.get_status, client.chatgpt.generate_and_wait, "task_uuid", "result_image_url"),
    ]


async def bought_and_read(side, resource):
    name, generate, status, _, id_field, _ = resource
    prompt = f"a paper boat, bought by {name}"
    bought = await generate(prompt=prompt)
    assert bought.status.value == "pending" and isinstance(bought.price, str), bought
    shown = await status(getattr(bought, id_field))
    assert getattr(shown, id_field) == getattr(bought, id_field) and shown.prompt == prompt, shown
    assert shown.status.value in ("pending", "processing", "completed"), shown
    if name.startswith("veo"):
        assert shown.seed == bought.seed and shown.created_at, shown
    return getattr(bought, id_field)


async def bought_and_waited_for(side, resource):
    name, _, _, whole, _, result_field = resource
    done = await whole(prompt=f"a paper boat, waited for by {name}", timeout=60)
    assert done.is_completed and getattr(done, result_field).startswith("http"), done
    if name.startswith("kling"):
        assert done.model, done
    if name.startswith("veo"):
        assert done.completed_at and done.error is None, done


async def failed_and_waited_for(side, resource):
    name, _, _, whole, _, result_field = resource
    done = await whole(prompt=f"a paper boat, failed for {name} [sandbox: fail=CONTENT_POLICY_VIOLATION takes=0.5]", timeout=60)
    assert done.is_failed and getattr(done, result_field) is None, done
    if name.startswith("veo"):
        assert "CONTENT_POLICY_VIOLATION" in json.dumps(done.error), done
    elif not name.startswith("kling"):
        assert done.message == "CONTENT_POLICY_VIOLATION", done


async def every_option(side):
    """What the client can send besides a prompt."""
    kling, image = side.client.kling, ["aGVsbG8="]
    await kling.generate(prompt="a boat", model="kling_2.1", image_url=IMAGE, duration="10", aspect_ratio="9:16",
                         negative_prompt="rain", cfg_scale=0.7, seed=7)
    moved = await kling.generate(prompt="a boat", model="kling_3_motion_pro", reference_video_url="https://example.com/boat.mp4",
                                 reference_image_url=IMAGE, motion_direction="image")
    assert moved.price == "calculating", moved
    await kling.generate_o1_video(prompt="a boat", first_frame_image_url=IMAGE, end_frame_image_base64="aGVsbG8=")
    await kling.generate_o1_video(prompt="a boat", images_urls=[IMAGE] * 5, duration="10", aspect_ratio="1:1", keep_original_sound=False)
    await kling.generate_o3_video(prompt="a boat", model="kling_o3_pro", duration="15", first_frame_url=IMAGE, end_frame_url=IMAGE)
    await kling.generate_o3_video(prompt="a boat", images_base64=image * 5, customize_multi_shots=True, prefer_multi_shots=True)
    await kling.generate_o1_photo(prompt="a boat", img_resolution="1k", aspect_ratio="21:9", images_url=[IMAGE] * 10)
    await kling.generate_o3_photo(prompt="a boat", aspect_ratio="auto", prefer_multi_shots=True, images_base64=image)
    veo = await side.client.veo.generate(prompt="a paper boat at sea", model="veo_3_quality_4k", seed=42, watermark_text="recoup",
                                         start_frame=image[0], end_frame=image[0])
    assert veo.seed == 42, veo
    await side.client.veo.generate(prompt="a paper boat at sea", reference_images=image * 3)
    await side.client.nanobanana.generate(prompt="a boat", model="v2", quality="4k", aspect_ratio="5:4", temperature=0.2, images=image * 8)
    await side.client.chatgpt.generate(prompt="a boat", aspect_ratio="2:3", images=image * 4)


async def listed(side, resource, buy, id_field):
    ids = [getattr(await buy(prompt=f"a paper boat, listed {n}"), id_field) for n in range(3)]
    newest = ids[::-1]
    shown = [getattr(item, id_field) for item in await resource.list()]
    assert shown[:3] == newest, (shown[:3], newest)
    assert [getattr(item, id_field) for item in await resource.list(limit=1, offset=1)] == newest[1:2]
    assert len(await resource.list(limit=100)) >= 3
    assert await resource.list(offset=10_000) == []
    try:
        await resource.list(limit=101)
    except errors.APIStatusError as error:
        assert error.status_code == 422, error
    else:
        raise AssertionError("a limit of 101 is taken")


async def bought_in_batches(side):
    client, prompts = side.client, [f"a paper boat of a batch, number {n}" for n in range(6)]
    for resource, id_field in [(client.kling, "generation_id"), (client.veo, "generation_id"), (client.nanobanana, "task_uuid"), (client.chatgpt, "task_uuid")]:
        batch = await resource.generate_batch(prompts)
        ids = [getattr(bought, id_field) for bought in batch]
        known = {bought["id"]: bought["prompt"] for bought in side.sandbox.ledger()}
        assert [known[id] for id in ids] == prompts, resource
    done = await client.nanobanana.generate_batch_and_wait(prompts)
    assert len(done) == 6 and all(item.is_completed for item in done), done


async def told_by_webhook(side, resource, fails):
    name, generate, _, _, id_field, _ = resource
    path = f"/{name}{'/failed' if fails else ''}"
    words = "fail=CONTENT_POLICY_VIOLATION" if fails else ""
    bought = await generate(prompt=f"a paper boat, told by webhook [sandbox: takes=0.5 {words}]", callback_url=f"{side.listener.url}{path}")
    _, headers, body = await side.listener.heard(path)
    event = parse_webhook_payload(body)
    assert event.id == getattr(bought, id_field) and event.is_terminal, body
    assert event.is_failed == fails and bool(event.result_url) != fails, body
    if fails:
        assert b"CONTENT_POLICY_VIOLATION" in body, body
    assert headers["content-type"].startswith("application/json"), headers
    assert verify_webhook_signature(body, headers["x-runblob-signature"], WEBHOOK_SECRET), headers
    assert not verify_webhook_signature(body + b" ", headers["x-runblob-signature"], WEBHOOK_SECRET)


async def refused(side, wanted, status, says, attempt):
    """The error is of the client's own class, and a person can read it."""
    try:
        await attempt
    except errors.APIError as error:
        assert type(error) is wanted and error.status_code == status, repr(error)
        assert says.lower() in str(error).lower(), str(error)
        assert error.request_id, error
        if str(error.body.get("type", "")).startswith("urn:recoup"):
            assert "{" not in error.message and "<" not in error.message, error.message
        return error
    raise AssertionError("nothing is raised")


async def errors_are_the_clients_own(side, proofs):
    impatient, o3 = side.other(max_retries=0), "/v1/kling/o3-video/generate"
    buy, raw = impatient.kling.generate_o3_video, impatient.request_raw
    prove = lambda name, *rest: proofs.prove(f"error {name}", refused(side, *rest))
    await prove("401", errors.AuthenticationError, 401, "key", side.other(api_key="wrong").kling.generate(prompt="a boat"))
    for form in (1, 2):
        side.sandbox.order("faults", {"on": "submit", "fault": {"no_credits": {"form": form}}})
        await prove(f"402 in form {form}", errors.InsufficientCreditsError, 402, "INSUFFICIENT_CREDITS", buy(prompt="a boat"))
    nobody = "00000000-0000-0000-0000-000000000000"
    await prove("404", errors.NotFoundError, 404, "not found", impatient.kling.get_o3_video_status(nobody))
    await prove("404 of veo", errors.NotFoundError, 404, "not", impatient.veo.get_status(nobody))
    await prove("422", errors.APIStatusError, 422, "duration", raw("POST", o3, body={"prompt": "a boat", "duration": 5}))
    if not side.is_gateway:
        # Through the gateway it is recoup that calls it.
        await prove("422 of a callback over http", errors.APIStatusError, 422, "https", buy(prompt="a boat", callback_url="http://n8n:5678/hook"))
    crowded = await_error(buy(prompt="a boat, crowded out [sandbox: answer=429 retry-after=3 times=9]"))
    await proofs.prove("error 429 with retry_after", rate_limited(crowded))
    for status in (500, 502, 503, 504):
        words = f"[sandbox: answer={status} unsold times=9]"
        await prove(str(status), errors.InternalServerError, 504 if side.is_gateway and status == 504 else status, "", buy(prompt=f"a boat {words}"))
    await impatient.close()


async def await_error(attempt):
    try:
        await attempt
    except errors.RunBlobError as error:
        return error
    raise AssertionError("nothing is raised")


async def rate_limited(attempt):
    error = await attempt
    assert type(error) is errors.RateLimitError and error.retry_after == 3.0, repr(error)


async def timed_out(side):
    bought = await side.client.kling.generate_o3_video(prompt="a boat [sandbox: never]")
    error = await await_error(side.client.kling.wait_for_o3_video(bought.generation_id, timeout=1))
    assert type(error) is errors.GenerationTimeoutError and error.task_uuid == bought.generation_id, error


async def repeated_by_itself(side):
    """At the sandbox the client's own repeat buys; the gateway tells it from a second purchase, which twice.py proves."""
    bought = await side.client.kling.generate_o3_video(prompt="a boat, repeated [sandbox: answer=503 unsold]")
    assert any(known["id"] == bought.generation_id for known in side.sandbox.ledger())


async def same_key_same_purchase(side):
    body = {"prompt": "a boat under a key", "duration": "5"}
    buy = lambda: side.client.request("POST", "/v1/kling/o3-video/generate", response_model=KlingGenerateResponse, body=body, idempotency_key="order-77")
    if not side.is_gateway:
        side.sandbox.order("settings", {"idempotency": "honoured"})
    first, again = await buy(), await buy()
    assert first.generation_id == again.generation_id, (first, again)
    assert sum(known["prompt"] == body["prompt"] for known in side.sandbox.ledger()) == 1


async def balance(side):
    answer = (await side.client.request_raw("GET", "/v1/data/balance")).json()
    assert 0 < float(answer["balance"]) <= 1_000, answer


async def lost_webhook(side):
    """Only a read can find it: here the client's own, at the gateway recoup's."""
    done = await side.client.kling.generate_o3_video_and_wait(prompt="a boat whose webhook is lost [sandbox: lose takes=1]", timeout=30)
    assert done.is_completed, done


async def cached(side):
    bought = await side.client.nanobanana.generate(prompt="a boat, cached")
    first = await side.client.nanobanana.get_status(bought.task_uuid, use_cache=True)
    assert await side.client.nanobanana.get_status(bought.task_uuid, use_cache=True) is first


async def as_the_bots_do(side):
    """Public bots poll .../status/{id} and read `message`."""
    async with httpx.AsyncClient(headers={"Authorization": f"Bearer {side.key}"}) as http:
        for family, id_field in [("kling/o3-video", "generation_id"), ("gemini", "task_uuid"), ("veo", "generation_id")]:
            body = {"prompt": "a boat for a bot [sandbox: takes=0.5]"}
            bought = (await http.post(f"{side.base}/v1/{family}/generate", json=body)).json()
            for _ in range(100):
                shown = (await http.get(f"{side.base}/v1/{family}/status/{bought[id_field]}")).json()
                if shown["status"] == "completed":
                    break
                await asyncio.sleep(0.2)
            assert shown["status"] == "completed" and shown.get("message") is None, shown


async def prove_all(side, proofs):
    client, prove = side.client, proofs.prove
    for resource in resources(client):
        await prove(f"{resource[0]} and its status", bought_and_read(side, resource))
    await asyncio.gather(*[prove(f"{resource[0]}_and_wait", bought_and_waited_for(side, resource)) for resource in resources(client)])
    await asyncio.gather(*[prove(f"{resource[0]}_and_wait of a failure", failed_and_waited_for(side, resource)) for resource in resources(client)])
    await prove("every option", every_option(side))
    lists = [("kling", client.kling, client.kling.generate, "generation_id"), ("veo", client.veo, client.veo.generate, "generation_id"),
             ("nanobanana", client.nanobanana, client.nanobanana.generate, "task_uuid"), ("chatgpt", client.chatgpt, client.chatgpt.generate, "task_uuid")]
    for name, resource, buy, id_field in lists:
        await prove(f"{name}.list", listed(side, resource, buy, id_field))
    await prove("generate_batch of all four", bought_in_batches(side))
    for fails in (False, True):
        hooks = [prove(f"webhook of {resource[0]}{', failed' if fails else ''}", told_by_webhook(side, resource, fails)) for resource in resources(client)]
        await asyncio.gather(*hooks)
    await errors_are_the_clients_own(side, proofs)
    await prove("GenerationTimeoutError", timed_out(side))
    if not side.is_gateway:
        await prove("the client's own repeat", repeated_by_itself(side))
    await prove("the same X-Idempotency-Key", same_key_same_purchase(side))
    await prove("balance", balance(side))
    await prove("a lost webhook", lost_webhook(side))
    await prove("a cached status", cached(side))
    await prove("status as the bots read it", as_the_bots_do(side))
    await client.close()


async def main():
    both = []
    for is_gateway in (False, True):
        with folder() as where:
            sandbox = Sandbox(where, "--speed", str(SPEED), "--status-reads-per-minute", "60" if is_gateway else "0")
            service = None
            try:
                async with Listener() as listener:
                    if is_gateway:
                        service = Service(where, sandbox.url, EXPECTED)
                        side = Side(f"{service.url}/gateway", API_KEY, sandbox, True, listener)
                    else:
                        side = Side(sandbox.url, PROVIDER_KEY, sandbox, False, listener)
                    proofs = Proofs("gateway" if is_gateway else "sandbox")
                    await prove_all(side, proofs)
                    both.append(proofs)
            finally:
                if service:
                    service.stop()
                sandbox.stop()
    failed = [f"{proofs.where}: {name}" for proofs in both for name in proofs.failed]
    print(f"{sum(proofs.run for proofs in both)} proofs, {len(failed)} failed")
    return 1 if failed else 0


sys.exit(asyncio.run(main()))
