"""Whatever bytes come from outside: the parsers under a fuzzer, for many inputs. CI replays the corpus in `cargo test` instead."""
import concurrent.futures, os, re, shutil, subprocess

from common import ROOT, Broken, Missing, proves, require, tool

FOLDER = os.path.join(ROOT, "fuzz")
TARGETS = sorted(os.listdir(os.path.join(FOLDER, "corpus")))
# What cargo-fuzz passes with `-s none`: counters at every edge, values of comparisons. Stable Rust has all of it.
COVERAGE = ["-Cpasses=sancov-module", "-Cllvm-args=-sanitizer-coverage-level=4", "-Cllvm-args=-sanitizer-coverage-inline-8bit-counters",
            "-Cllvm-args=-sanitizer-coverage-pc-table", "-Cllvm-args=-sanitizer-coverage-trace-compares", "--cfg", "fuzzing", "-Ccodegen-units=16"]


def built():
    """The fuzzer, with every target in it. It can have a fault planted; without RECOUP_PLANTED none is."""
    tool("c++", "g++")
    host = next(line.split()[1] for line in subprocess.run(["rustc", "-vV"], capture_output=True, text=True, check=True).stdout.splitlines() if line.startswith("host"))
    command = ["cargo", "build", "--release", "--locked", "--features", "planted", "--target", host]
    ran = subprocess.run(command, cwd=FOLDER, env=os.environ | {"RUSTFLAGS": " ".join(COVERAGE)}, capture_output=True, text=True)
    if ran.returncode:
        raise Missing(f"the fuzzer cannot be built:\n{ran.stderr[-1500:]}")
    return os.path.join(FOLDER, "target", host, "release", "targets")


def run(bench, binary, target, inputs, seed):
    """How many inputs, how many edges; Broken with the input that broke it."""
    folder = bench.subfolder(target)
    corpus = shutil.copytree(os.path.join(FOLDER, "corpus", target), os.path.join(folder, "corpus"))
    options = [f"-runs={inputs}", f"-seed={seed}", "-max_len=4096", "-timeout=5", "-rss_limit_mb=1024", "-malloc_limit_mb=256", "-max_total_time=1500",
               "-print_final_stats=1", f"-artifact_prefix={folder}/"]
    # Started by a shell, which is small: the fuzzer takes the most memory that its process ever had for its own, and that is ours at first.
    alone = ["sh", "-c", '"$0" "$@"; exit $?', binary, corpus, *options]
    ran = subprocess.run(alone, env=os.environ | bench.planting() | {"RECOUP_FUZZ": target}, capture_output=True, text=True, errors="replace")
    if ran.returncode:
        broken = next((name for name in sorted(os.listdir(folder)) if name != "corpus"), None)
        found = open(os.path.join(folder, broken), "rb").read() if broken else b""
        said = next((line for line in ran.stderr.splitlines() if "panicked at" in line or "ERROR" in line), ran.stderr[-300:])
        raise Broken(f"{target}: {said} on {found!r}")
    done = int(re.search(r"number_of_executed_units: (\d+)", ran.stderr)[1])
    edges = re.findall(r"cov: (\d+)", ran.stderr)
    return done, int(edges[-1]) if edges else 0


@proves("G10", small=None, full=100_000_000, faults=["ParserPanics"])
def inputs(bench, times):
    """No bytes make a parser panic, hang, or take more than 256 MB, or break what it promises."""
    # A fault is found among the first, or it is not found.
    each = (4_000_000 if bench.fault else times) // len(TARGETS)
    binary = built()
    require(len(TARGETS) == 8, f"there are {len(TARGETS)} targets")
    with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
        runs = {target: pool.submit(run, bench, binary, target, each, bench.seed) for target in TARGETS}
        done = {target: future.result() for target, future in runs.items()}
    total = sum(count for count, _ in done.values())
    return f"{total:,} inputs, 0 broken; " + ", ".join(f"{target} {count / 1e6:.1f} million over {edges:,} edges" for target, (count, edges) in done.items())
