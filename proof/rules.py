"""The rules themselves: simulated histories with every fault at once, orders of threads, requests made out of the API document, mutants of the rules."""
import os, re, shutil, subprocess, sys

from common import ROOT, Broken, Missing, proves, require

# Each is found within the first histories (src/planted.rs).
RULES = ["EventForDuplicate", "SilentCheck", "SequenceGap", "Reopened", "Overwritten", "FailedByTime", "LostUnasked", "NotFoundIsFailed", "UnknownIsFailed",
         "SleepsForEver", "AcknowledgedUnkept", "ForgedAccepted", "BoughtTwice", "IntentAfterwards", "KeyIgnored", "BudgetForgotten", "FixedWindow",
         "RestIgnored", "AskedTwice"]


def last_line(text):
    return next((line for line in reversed(text.splitlines()) if line.strip()), "nothing was said")


@proves("G8", small=400, full=80_000, faults=RULES)
def histories(bench, seeds):
    """In no simulated history, with webhooks lost, late, repeated, contradicting and forged, crashes and refusals, is an invariant broken."""
    sim = os.path.join(os.path.dirname(bench.binary), "sim")
    if not os.access(sim, os.X_OK):
        raise Missing(f"{sim} is not there")
    ran = subprocess.run([sim, "seeds", str(seeds)], env=os.environ | bench.planting(), capture_output=True, text=True)
    said = last_line(ran.stdout)
    require(ran.returncode == 0, said)
    found = re.match(r"(\d+) histories from seed 0: (\d+) events, (\d+) reads", said)
    require(found and int(found[1]) == seeds, f"not all were run: {said}")
    return f"{seeds:,} histories, {int(found[2]):,} events, {int(found[3]):,} reads: no invariant broken; {-(-seeds // 50):,} run twice, the same to the hash"


@proves("G25", small=10_000, full=100_000, faults=["TakenInTwoSteps", "ClockBeforeLock"])
def orders(bench, random):
    """In every order of three threads, and in random ones of six, no minute holds more status reads than the budget."""
    command = [sys.executable, os.path.join(ROOT, "proof", "orders"), "--folder", os.path.join(ROOT, "target", "orders"), "--random", str(random), "--seed", str(bench.seed)]
    ran = subprocess.run(command, env=os.environ | {"RUST_BACKTRACE": "0"} | bench.planting(), capture_output=True, text=True)
    if ran.returncode == 101:
        raise Broken(next((line for line in ran.stderr.splitlines() if " reads " in line), ran.stderr[:300]))
    if ran.returncode:
        raise OSError(f"proof/orders ended with {ran.returncode}: {ran.stderr[-500:]}")
    return last_line(ran.stdout)


@proves("G11", small=None, full=600, faults=["PanicTellsAll"])
def generated_requests(bench, each):
    """Requests made out of the API document get documented answers, and never a 5xx."""
    few = 8 if bench.fault else each
    ran = subprocess.run([os.path.join(ROOT, "tests", "schemathesis", "run"), str(few)], env=os.environ | bench.planting() | {"RECOUP_BINARY": bench.binary},
                         capture_output=True, text=True)
    said = ran.stdout + ran.stderr
    require(ran.returncode == 0, next((line.strip() for line in said.splitlines() if "Server error" in line or "Undocumented" in line), last_line(said)))
    cases = re.search(r"(\d[\d,]*) generated", said)
    require(cases, f"it does not tell how many: {last_line(said)}")
    return f"{cases[1]} requests, {each} examples for each operation: all answers documented, no 5xx"


@proves("G8b", small=None, full=150)
def mutants(bench, sample):
    """At least 90 % of the mutants of src/domain are caught by its own tests."""
    if not shutil.which("cargo-mutants"):
        raise Missing("cargo-mutants is needed: cargo install --locked cargo-mutants")
    ran = subprocess.run([sys.executable, os.path.join(ROOT, "proof", "mutants"), "--sample", str(sample), "--seed", str(bench.seed)], capture_output=True, text=True)
    said = last_line(ran.stdout)
    if ran.returncode:
        raise Broken(said if ran.stdout else ran.stderr[-300:])
    return f"a sample of {sample} by seed {bench.seed}: {said}"
