"""Every example of README.md that talks to recoup, run as it stands there, in front of the sandbox that is strict about types."""
import json, os, pathlib, re, shutil, subprocess, sys

from processes import API_KEY, PROVIDER_KEY, Sandbox, Service, call, folder

ROOT = pathlib.Path(__file__).parents[2]
# As fast as the sandbox makes them.
EXPECTED = """
[reconcile]
grace = "500ms"
[expected."kling/o3-video"]
kling_o3 = { "5" = ["500ms", "2s"] }
"""


def examples():
    """Language and text of each block that talks to recoup; of shell each command alone."""
    for language, block in re.findall(r"^```(sh|python|js)\n(.*?)^```", (ROOT / "README.md").read_text(), re.M | re.S):
        if language != "sh":
            # The receivers have tests of their own.
            if "RECOUP_URL" in block:
                yield language, block
            continue
        lines = "\n".join(line for line in block.splitlines() if not line.startswith("#"))
        for command in re.split(r"\n(?=\S)", lines):
            if command.startswith("curl") and ("RECOUP_URL" in command or "localhost:8080" in command):
                yield language, command


class Reader:
    """Somebody who follows the README: what an ellipsis stands for is what was answered before."""

    def __init__(self, sandbox, service):
        self.sandbox, self.service = sandbox, service
        self.prepared = self.provider_id = None

    def bought(self):
        """A purchase at the provider itself, with the callback URL that was prepared."""
        order = {"prompt": "a paper boat on a puddle", "duration": "5"}
        if self.prepared:
            order["callback_url"] = self.prepared["callback_url"]
        self.provider_id = call(f"{self.sandbox.url}/v1/kling/o3-video/generate", order, key=PROVIDER_KEY)["generation_id"]

    def run(self, language, example):
        if '"generation_id": "7b0e1f52-..."' in example:
            self.bought()
        for shown, real in [("localhost:8080", self.service.url), ("gen_...", self.prepared and self.prepared["id"]), ("7b0e1f52-...", self.provider_id)]:
            example = example.replace(shown, real or shown)
        programs = {"sh": ["bash", "-euc"], "python": [sys.executable, "-c"], "js": ["node", "--input-type=module", "-e"]}
        environment = {**os.environ, "RECOUP_URL": self.service.url, "RECOUP_KEY": API_KEY, "KEY": API_KEY}
        ran = subprocess.run([*programs[language], example], env=environment, capture_output=True, text=True, timeout=90)
        assert ran.returncode == 0, f"{example}\n{ran.stderr}"
        assert ran.stdout.strip(), f"{example}\nsays nothing"
        assert "urn:recoup:problem" not in ran.stdout and '"detail"' not in ran.stdout, f"{example}\n{ran.stdout}"
        if '"callback_url"' in ran.stdout and example.startswith("curl") and '"family"' in example:
            self.prepared = json.loads(ran.stdout)


def main():
    if not shutil.which("node"):
        raise SystemExit("the README's example in JavaScript needs Node.js")
    done = failed = 0
    with folder() as where:
        sandbox = Sandbox(where, "--speed", "100")
        service = None
        try:
            service = Service(where, sandbox.url, EXPECTED)
            reader = Reader(sandbox, service)
            for language, example in examples():
                first = next(line for line in example.splitlines() if line)[:90]
                done += 1
                try:
                    reader.run(language, example)
                    print(f"ok      README: {language}: {first}")
                except (AssertionError, subprocess.TimeoutExpired) as error:
                    failed += 1
                    print(f"FAILED  README: {language}: {first}\n{error}")
        finally:
            if service:
                service.stop()
            sandbox.stop()
    assert done >= 10, f"only {done} examples were found"
    return 1 if failed else 0


sys.exit(main())
