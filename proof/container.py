"""The image as users run it: built from the Dockerfile for real, without root, capabilities, a writable root or more than 128 MB; and what is linked."""
import contextlib, hashlib, json, os, re, shutil, subprocess, tarfile, time, urllib.parse

from access import log_in
from common import KEY, PROVIDER_KEY, ROOT, SECRET, Broken, Missing, Process, call, free_port, proves, require, tool, until, webhook

BASE, RUST = "debian:bookworm-slim", "rust:1.95-slim-bookworm"
MEMORY_MIB, PIDS = 128, 64


class Engine:
    """A docker daemon of our own: no bridge, no firewall rules, everything under one folder."""

    def __init__(self, folder):
        tool("dockerd", "docker.io")
        # /usr/bin: another docker in front may be without what a build needs.
        self.docker = next(path for path in ("/usr/bin/docker", shutil.which("docker")) if path and os.path.exists(path))
        self.folder, self.socket = folder, f"unix://{folder}/d.sock"
        command = ["dockerd", "--data-root", f"{folder}/root", "--exec-root", f"{folder}/exec", "-H", self.socket, "--pidfile", f"{folder}/pid",
                   "--storage-driver=overlay2", "--bridge=none", "--iptables=false", "--ip-forward=false", "--ip-masq=false"]
        self.daemon = Process(command, folder, dict(os.environ), f"{folder}/dockerd.log")
        try:
            until("dockerd answers", lambda: self.ran("version").returncode == 0, 60, 0.2)
        except Broken:
            self.daemon.kill()
            raise Missing(f"no container engine can be had here:\n{self.daemon.words()[-600:]}") from None

    def ran(self, *arguments, timeout=60, **more):
        environment = os.environ | {"DOCKER_HOST": self.socket, "DOCKER_BUILDKIT": "1"}
        return subprocess.run([self.docker, *arguments], env=environment, capture_output=True, text=True, timeout=timeout, **more)

    def must(self, *arguments, **more):
        ran = self.ran(*arguments, **more)
        require(ran.returncode == 0, f"docker {arguments[0]}: {(ran.stderr or ran.stdout)[-1200:]}")
        return ran.stdout.strip()

    def close(self):
        for running in self.ran("ps", "-q").stdout.split():
            self.ran("kill", running)
        with contextlib.suppress(Broken):
            self.daemon.terminate(20)


def stand_in(engine, folder):
    """The base images, without a registry: Debian by debootstrap, and this machine's own toolchain in it."""
    if engine.ran("image", "inspect", RUST).returncode == 0:
        return "as they were there"
    tool("debootstrap")
    root = f"{folder}/rootfs"
    subprocess.run(["debootstrap", "--variant=minbase", "--include=ca-certificates,gcc,g++,libc6-dev", "bookworm", root], check=True, capture_output=True)
    archive = subprocess.Popen(["tar", "-C", root, "-c", "."], stdout=subprocess.PIPE)
    engine.must("import", "-", BASE, stdin=archive.stdout, timeout=300)
    archive.wait()
    context = f"{folder}/rust"
    os.makedirs(context, exist_ok=True)
    sysroot = subprocess.run(["rustc", "--print", "sysroot"], check=True, capture_output=True, text=True).stdout.strip()
    subprocess.run(["tar", "-C", sysroot, "--exclude=./share", "-cf", f"{context}/rust.tar", "."], check=True)
    home = os.environ.get("CARGO_HOME", os.path.expanduser("~/.cargo"))
    # The crates as they were fetched: the build then needs no network.
    subprocess.run(["tar", "-C", home, "-cf", f"{context}/registry.tar", "registry/index", "registry/cache"], check=True)
    settings = [path for path in (f"{home}/config.toml", f"{home}/config") if os.path.exists(path)]
    open(f"{context}/config.toml", "w").write(open(settings[0]).read() if settings else "")
    with open(f"{context}/Dockerfile", "w") as file:
        file.write(f"FROM {BASE}\nADD rust.tar /usr/local/\nADD registry.tar /usr/local/cargo/\nCOPY config.toml /usr/local/cargo/config.toml\nENV CARGO_HOME=/usr/local/cargo\n")
    engine.must("build", "--network=none", "-t", RUST, context, timeout=600)
    return "stood in for by debootstrap and this machine's toolchain"


class Container:
    """The service in the container, as compose.yaml runs it and stricter."""

    LIMITS = ["--read-only", "--cap-drop=ALL", "--security-opt=no-new-privileges", f"--memory={MEMORY_MIB}m", f"--pids-limit={PIDS}"]

    def __init__(self, engine, image, volume, provider, limits=None):
        self.engine, self.port = engine, free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        settings = {"PROVIDER__API_KEY": PROVIDER_KEY, "PROVIDER__BASE_URL": provider, "API__KEY": KEY, "WEBHOOK__SECRETS": SECRET,
                    "SERVER__LISTEN": f"127.0.0.1:{self.port}", "SERVER__PUBLIC_URL": self.url}
        environment = [part for key, value in settings.items() for part in ("--env", f"RECOUP_{key}={value}")]
        self.id = engine.must("run", "-d", "--network=host", "--volume", f"{volume}:/data", *(self.LIMITS if limits is None else limits), *environment, image)

    def ready(self):
        def answers():
            with contextlib.suppress(OSError):
                return call(self.url, "GET", "/readyz", timeout=5)[0] == 200
        try:
            until("the container is ready", answers, 30)
        except Broken as broken:
            raise Broken(f"{broken}\n{self.engine.ran('logs', self.id).stdout[-800:]}") from None
        return self

    def kill(self):
        self.engine.must("kill", "--signal=KILL", self.id)
        self.engine.must("wait", self.id)

    def pid(self):
        return int(self.engine.must("inspect", "--format", "{{.State.Pid}}", self.id))


def confined(container):
    """What the kernel itself says of the process."""
    with open(f"/proc/{container.pid()}/status") as file:
        said = dict(line.rstrip("\n").split(":\t", 1) for line in file if ":\t" in line)
    require("0" not in said["Uid"].split(), f"it runs as root: {said['Uid']}")
    for set_of in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"):
        require(int(said[set_of], 16) == 0, f"it has capabilities: {set_of} {said[set_of]}")
    require(said["NoNewPrivs"].strip() == "1", "it may gain privileges")
    told = json.loads(container.engine.must("inspect", container.id))[0]
    require(told["HostConfig"]["ReadonlyRootfs"] and told["HostConfig"]["Memory"] == MEMORY_MIB << 20, "the limits do not hold")
    with open(f"/proc/{container.pid()}/mounts") as file:
        root = next(line.split() for line in file if line.split()[1] == "/")
    require("ro" in root[3].split(","), f"the root can be written: {root[3]}")
    return int(said["VmHWM"].split()[0]) / 1024


@proves("G19", small=None, full=20)
def image(bench, kills):
    """The image of the Dockerfile, confined: a webhook, a recovery and twenty kills; at most 20 MB, one file."""
    folder = bench.subfolder("engine")
    engine = Engine(folder)
    try:
        return confined_run(bench, engine, folder, kills)
    finally:
        engine.close()


def confined_run(bench, engine, folder, kills):
    bases = stand_in(engine, folder)
    began = time.monotonic()
    engine.must("build", "--network=none" if "stood in" in bases else "--network=default", "--build-arg", f"CARGO_NET_OFFLINE={'true' if 'stood in' in bases else 'false'}", "-t", "recoup", ROOT, timeout=3_000)
    built_s = time.monotonic() - began
    engine.must("save", "-o", f"{folder}/image.tar", "recoup", timeout=120)
    size_mb = int(engine.must("image", "inspect", "--format", "{{.Size}}", "recoup")) / 1e6
    require(files_of(f"{folder}/image.tar") == {"recoup", "data/"}, f"the image holds {files_of(f'{folder}/image.tar')}")
    require(size_mb <= 20, f"the image has {size_mb:.1f} MB")
    provider = bench.sandbox("--key", PROVIDER_KEY, "--speed", 1_000)
    # The sham: without the flags the same look at the process must fail.
    loose = Container(engine, "recoup", "loose", provider.url, []).ready()
    with contextlib.suppress(Broken):
        confined(loose)
        raise RuntimeError("a container without limits passes for a confined one")
    loose.kill()
    container = Container(engine, "recoup", "kept", provider.url).ready()
    confined(container)
    settled = {buy(container, "a boat"), buy(container, "a boat [sandbox: lose]", recover=True)}
    acknowledged, peak_mb = set(), 0.0
    for nth in range(kills):
        path = standing(engine)
        for one in range(5):
            name = f"k-{nth}-{one}"
            status, _, _ = call(container.url, "POST", path, webhook(name))
            require(status == 200, f"a webhook is answered {status}")
            acknowledged.add(name)
        peak_mb = max(peak_mb, confined(container))
        container.kill()
        container = Container(engine, "recoup", "kept", provider.url).ready()
    kept, cursor = set(), ""
    while cursor is not None:
        _, page, _ = call(container.url, "GET", f"/v1/generations?limit=200{cursor and '&cursor=' + cursor}", key=KEY)
        # What came by the standing URL is kept, and stays open: the provider never sold it.
        kept |= {row["generation_id"] for row in page["data"] if row["status"] == "completed" or row["generation_id"] not in settled}
        cursor = page["next_cursor"]
    require(acknowledged | settled <= kept, f"{len((acknowledged | settled) - kept)} are lost")
    require(engine.ran("exec", container.id, "/recoup", "health").returncode == 0 or engine.ran("exec", container.id, "/recoup", "health", "--url", container.url).returncode == 0, "its health check fails")
    engine.must("stop", "--time", "30", container.id)
    require(engine.must("inspect", "--format", "{{.State.ExitCode}}", container.id) == "0", "SIGTERM does not end it in good order")
    return f"image {size_mb:.1f} MB (bases {bases}, built in {built_s / 60:.0f} min); uid 65532, no capabilities, read-only root; {kills} kills, {len(acknowledged)} acknowledged, 0 lost; at most {peak_mb:.0f} MB"


def files_of(archive):
    """The names in all layers of a saved image."""
    names = set()
    with tarfile.open(archive) as whole:
        for layer in json.load(whole.extractfile("manifest.json"))[0]["Layers"]:
            with tarfile.open(fileobj=whole.extractfile(layer)) as files:
                names |= {member.name.rstrip("/") + ("/" if member.isdir() else "") for member in files}
    return names


def standing(engine):
    told = engine.must("run", "--rm", "--network=none", "--env", f"RECOUP_WEBHOOK__SECRETS={SECRET}",
                       "--env", "RECOUP_SERVER__PUBLIC_URL=https://recoup.example", "recoup", "callback-url", "kling/o3-video")
    return urllib.parse.urlsplit(told.split()[-1]).path


def buy(container, prompt, recover=False):
    """Buys through the gateway; the provider's id, once it is completed."""
    status, answer, headers = call(container.url, "POST", "/gateway/v1/kling/o3-video/generate", {"prompt": prompt}, key=KEY)
    require(status == 201, f"a purchase is answered {status}: {answer}")

    def completed():
        if recover:
            call(container.url, "POST", f"/v1/generations/{headers['recoup-generation']}/checks", {}, key=KEY)
        return call(container.url, "GET", f"/v1/generations/{headers['recoup-generation']}", key=KEY)[1]["status"] == "completed"
    until("it completes", completed, 40, 0.5)
    return answer["generation_id"]


def linked(*target):
    """Every crate that is linked into the service, by cargo's own word: name and version. `target`: on another platform than this, or `all`."""
    command = ["cargo", "tree", "--locked", "--offline", "--edges", "normal", *(f"--target={one}" for one in target), "--prefix", "none", "--no-default-features", "--format", "{p}"]
    lines = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout.splitlines()
    return {tuple(line.split()[:2]) for line in lines if line and not line.startswith("recoup ")}


@proves("G20", small=1, full=1)
def supply_chain(bench, _):
    """No unsafe code of ours, every linked crate in the lock file with its checksum and an allowed licence, and no SQLite with the WAL-reset bug."""
    own = [os.path.join(place, name) for top in ("src", "tests", "benches", "fuzz/fuzz_targets") for place, _, names in os.walk(os.path.join(ROOT, top)) for name in names if name.endswith(".rs")]
    guilty = lambda text: re.search(r"\bunsafe\b\s*(\{|fn\b|impl\b|extern\b|trait\b)", text) or "allow(unsafe_code" in text
    require(guilty("unsafe { x }") and not guilty("nothing is unsafe here"), "the search finds nothing")  # the sham
    for path in own:
        with open(path) as file:
            require(not guilty(file.read()), f"{os.path.relpath(path, ROOT)} has unsafe code")
    with open(os.path.join(ROOT, "Cargo.toml")) as file:
        require('unsafe_code = "forbid"' in file.read(), "Cargo.toml does not forbid unsafe code")
    with open(os.path.join(ROOT, "Cargo.lock")) as file:
        locked = {(one[1], "v" + one[2]): one[0] for one in re.findall(r'(name = "([^"]+)"\nversion = "([^"]+)"\n(?:.+\n)*)', file.read())}
    crates = linked("all")
    for crate in crates:
        require("checksum = " in locked.get(crate, ""), f"{crate} has no checksum in Cargo.lock")
    rules = os.path.join(ROOT, ".ci", "dependencies")
    require(subprocess.run([rules], cwd=ROOT, capture_output=True).returncode == 0, ".ci/dependencies refuses a licence, a ban or a source")
    service = bench.serve()
    cookie, _ = log_in(service.url, KEY)
    _, page, _ = call(service.url, "GET", "/setup", headers={"cookie": cookie})
    version = re.search(r"SQLite (\d+)\.(\d+)\.(\d+)", re.sub(r"<[^>]*>|\s+", " ", page.decode()).replace("  ", " "))
    require(version and tuple(map(int, version.groups())) >= (3, 51, 3), f"it runs on {version and version[0]}")
    more = denied()
    return f"{len(own)} files of ours without unsafe code; {len(crates)} linked crates, all with checksums and allowed licences; {version[0]}; {more}"


def denied():
    """cargo-deny's own word, where it is installed; advisories only where their list can be had."""
    if not shutil.which("cargo-deny"):
        return "cargo-deny is not installed"
    ran = subprocess.run(["cargo", "deny", "--offline", "--locked", "check", "licenses", "bans", "sources"], cwd=ROOT, capture_output=True, text=True)
    require(ran.returncode == 0, f"cargo deny: {ran.stderr[-600:]}")
    return "cargo deny clean"


def commit_in(folder):
    """The files of this commit, in a folder of their own."""
    archive = subprocess.run(["git", "archive", "HEAD"], cwd=ROOT, check=True, capture_output=True).stdout
    subprocess.run(["tar", "-x", "-C", folder], input=archive, check=True)
    return folder


@proves("G20", small=None, full=2)
def reproducible(bench, builds):
    """Built twice from one commit in a folder of one name, as the image is, it is the same, byte for byte."""
    digests = set()
    # Of one name: code that a crate generates while it is built tells in its panics where that was.
    for _ in range(builds):
        folder, target = commit_in(bench.subfolder("source")), bench.subfolder("target")
        ran = subprocess.run(["cargo", "build", "--release", "--locked", "--bin", "recoup"], cwd=folder,
                             env=os.environ | {"CARGO_TARGET_DIR": target}, capture_output=True, text=True)
        require(ran.returncode == 0, f"it cannot be built: {ran.stderr[-600:]}")
        built = os.path.join(target, "release", "recoup")
        digests.add(sha256(built))
        size = os.path.getsize(built)
        if len(digests) == 1:
            # The sham: one bit of it differs.
            with open(built, "r+b") as file:
                file.seek(size // 2)
                byte = file.read(1)[0]
                file.seek(size // 2)
                file.write(bytes([byte ^ 1]))
            require(sha256(built) not in digests, "the comparison finds nothing")
        shutil.rmtree(target)
        shutil.rmtree(folder)
    require(len(digests) == 1, f"{builds} builds gave {len(digests)} different binaries")
    return f"{builds} builds from nothing: the same {size / 1e6:.1f} MB, sha256 {digests.pop()[:16]}"


def sha256(path):
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@proves("G20", small=None, full=1)
def bill_of_materials(bench, _):
    """The bill of materials (CycloneDX) that `just sbom` writes names every linked crate with its version, licence and checksum."""
    if not shutil.which("cargo-cyclonedx"):
        raise Missing("cargo-cyclonedx is needed: cargo install --locked cargo-cyclonedx")
    folder = commit_in(bench.subfolder("source"))
    subprocess.run(["cargo", "cyclonedx", "--format", "json"], cwd=folder, check=True, capture_output=True)
    with open(os.path.join(folder, "recoup.cdx.json")) as file:
        told = json.load(file)
    named = {(part["name"], "v" + part["version"]): part for part in told["components"]}
    crates = linked()
    missing = lambda named: crates - {crate for crate, part in named.items() if part.get("licenses") and part.get("hashes")}
    require(missing(dict(list(named.items())[:-1])) or list(named)[-1] not in crates, "the comparison finds nothing")  # the sham
    require(not missing(named), f"it does not name {sorted(missing(named))[:5]}")
    return f"{len(crates)} linked crates, each with version, licence and checksum"
