"""Purchases that are sent again, by the provider's own client and by two like the public bots, which repeat whatever fails.

What is done and how it is judged is tests/clients/twice.py; here it is asked for, often, and shown to turn red."""
import os, subprocess

from common import ROOT, Broken, Missing, proves, require

# As many as there are scripts and buyers: each once.
EACH_ONCE = 63
EACH_ONCE_SILENT = 19


def buy(bench, calls, kills, *more):
    """Runs it; what it counted, in words."""
    command = [f"{ROOT}/tests/clients/python", f"{ROOT}/tests/clients/twice.py", "--calls", calls, "--kills", kills, "--seed", bench.seed, *more]
    environment = os.environ | {"RECOUP_BINARY": bench.binary} | bench.planting()
    run = subprocess.run([str(word) for word in command], env=environment, capture_output=True, text=True)
    if "is needed" in run.stderr or "No matching distribution" in run.stderr:
        raise Missing(run.stderr.strip().splitlines()[-1])
    lines = run.stdout.splitlines()
    wrong = [line.removeprefix("FAILED").strip() for line in lines if line.startswith("FAILED")]
    if wrong:
        raise Broken("\n".join([*wrong[:-1], *[line for line in lines if line.startswith("FIGURES")]]) or wrong[-1])
    require(run.returncode == 0, f"it ended with {run.returncode}: {run.stderr[-2000:]}")
    return next(line for line in lines if line.startswith("FIGURES")).removeprefix("FIGURES ")


def amount(calls, each_once):
    """What is fast for the small number; the slow answers and a kill for every fifty calls for the large one."""
    return (1, "--quick") if calls <= each_once else (calls // 50, "--slow", "--rate", 3)


@proves("", small=EACH_ONCE, full=1_000, faults=["RepeatSent", "KeyKeptWhenUnsold", "OtherKeySent", "LostNotLookedFor", "ListMatchedByPrompt"])
def repeats_told(bench, calls):
    """Its answer lost, cut, slow, 4xx or 5xx, and recoup killed in between: a call buys once, and gets the id of what it bought."""
    quick = ["--repeat-wait", "10s", "--deadline", 14] if calls <= EACH_ONCE else []
    return buy(bench, calls, *amount(calls, EACH_ONCE), *quick)


@proves("", small=EACH_ONCE_SILENT, full=1_000, faults=["RepeatNotHeld"])
def repeats_untold(bench, calls):
    """Where there are no lists: whom a webhook tells gets its id, whom nothing tells fails with its one purchase shown as unconfirmed."""
    quick = ["--repeat-wait", "2s"] if calls <= EACH_ONCE_SILENT else ["--repeat-wait", "10s"]
    return buy(bench, calls, *amount(calls, EACH_ONCE_SILENT), "--lists", "absent", *quick)
