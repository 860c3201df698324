"""Buys a few generations through the gateway, and writes the service's API document with ids that exist in its examples."""

import json
import sys
import time
import urllib.request

service, file, standing = sys.argv[1:4]


def ask(method, path, body=None):
    request = urllib.request.Request(service + path, method=method)
    request.add_header("Authorization", "Bearer schemathesis")
    if body is not None:
        request.data = json.dumps(body).encode()
        request.add_header("Content-Type", "application/json")
    with urllib.request.urlopen(request) as answer:
        return json.load(answer)


for number in range(12):
    body = {"prompt": "a paper boat", "model": "kling_o3", "duration": "5"}
    ask("POST", "/gateway/v1/kling/o3-video/generate", body)
prepared = ask("POST", "/v1/generations", {"family": "kling/o3-video", "metadata": {"user": "42"}})
ask("POST", "/v1/generations", {"generation_id": "bought-elsewhere", "price": "0.4500", "prompt": "a paper boat"})

# Five seconds of video take the sandbox a few hundred milliseconds at this speed.
deadline = time.monotonic() + 30
while not (deliveries := ask("GET", "/v1/deliveries")["data"]) and time.monotonic() < deadline:
    time.sleep(0.1)
events = ask("GET", "/v1/events")["data"]
settled = events[0]["data"]

text = urllib.request.urlopen(service + "/openapi.json").read().decode()
token = standing.strip().rsplit("/", 1)[1]
for example, real in [
    ("gen_0199d4c2b7a07f3e9b1c2a3d4e5f6071", settled["id"]),
    ("dlv_0199d4c2b7a07f3e9b1c2a3d4e5f6071", deliveries[0]["id"]),
    ("evt_0199d4c2b7a07f3e9b1c2a3d4e5f6071", events[0]["id"]),
    ("7b0e1f52-4c1d-4f0a-9a57-2d6f3c8e91aa", settled["generation_id"]),
    ("any.kq3mJt0v6yq1", token),
]:
    assert example in text, example
    text = text.replace(example, real)
with open(file, "w") as out:
    out.write(text)
