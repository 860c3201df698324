"""Where events may be sent: 250 and more addresses that hide an inside, and a canary there that must never be called."""
import contextlib, os, selectors, socket, subprocess, threading, time

from clients import QUIET
from common import proves, require, tool, until

NAMES = ["inside.example", "both.example", "mapped.example", "rebound.example", "localhost.example", "xn--nside-3sa.example"]


class Canary:
    """Listens on every address of this machine, on one port and on those of http and https where that may be. Counts who calls."""

    def __init__(self):
        self.called, self.selector, self.sockets = [], selectors.DefaultSelector(), []
        self.port = self.listens(0)
        for port in (80, 443):
            with contextlib.suppress(OSError):
                self.listens(port)
        self.ends = threading.Event()
        threading.Thread(target=self.run, daemon=True).start()

    def listens(self, port):
        listener = socket.create_server(("::", port), family=socket.AF_INET6, dualstack_ipv6=True, backlog=512)
        self.selector.register(listener, selectors.EVENT_READ)
        self.sockets.append(listener)
        return listener.getsockname()[1]

    def run(self):
        while not self.ends.is_set():
            for key, _ in self.selector.select(0.1):
                connection, who = key.fileobj.accept()
                connection.settimeout(0.5)
                with contextlib.suppress(OSError):
                    self.called.append((who[0], connection.recv(200)))
                connection.close()

    def close(self):
        self.ends.set()
        for listener in self.sockets:
            listener.close()


def own_addresses():
    """This machine's own addresses that are nobody's public ones."""
    found = {"127.0.0.1", "127.8.8.8", "0.0.0.0"}
    with contextlib.suppress(OSError), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.connect(("192.0.2.1", 9))
        own = probe.getsockname()[0]
        if own.startswith(("10.", "192.168.", "172.", "169.254.", "100.")):
            found.add(own)
    return sorted(found)


def spellings(address):
    """Ways to write one IPv4 address that a browser, a C library or a proxy may understand."""
    a, b, c, d = (int(part) for part in address.split("."))
    whole = a << 24 | b << 16 | c << 8 | d
    wide = str.maketrans("0123456789.", "０１２３４５６７８９．")
    circled = str.maketrans("123456789", "①②③④⑤⑥⑦⑧⑨")
    return [
        address, f"{address}.", str(whole), f"0x{whole:x}", f"0{whole:o}", f"0x{whole:X}", f"{a}.{b << 16 | c << 8 | d}", f"{a}.{b}.{c << 8 | d}",
        ".".join(f"0x{part:x}" for part in (a, b, c, d)), ".".join(f"0{part:o}" for part in (a, b, c, d)), f"0x{a:x}.{b}.0{c:o}.{d}",
        ".".join(f"{part:04o}" for part in (a, b, c, d)), address.translate(wide), address.translate(circled), address.replace(".", "。"),
        "".join(f"%{ord(sign):02x}" for sign in address), address.replace(".", "%2e"), f"[::ffff:{address}]", f"[::ffff:{a:02x}{b:02x}:{c:02x}{d:02x}]",
        f"[0:0:0:0:0:ffff:{address}]", f"[::{address}]", f"[64:ff9b::{address}]", f"[64:ff9b:1::{address}]", f"[2002:{a:02x}{b:02x}:{c:02x}{d:02x}::]",
        f"example.com@{address}", f"example.com:443@{address}", f"example.com%40{address}", f"user:pass@{address}", f"@{address}", f"example.com%23@{address}",
    ]


LITERAL = ["[::1]", "[::]", "[0000:0000:0000:0000:0000:0000:0000:0001]", "[::1%25lo]", "[fe80::1%25lo]", "[fe80::1]", "[fc00::1]", "[ff02::1]", "localhost",
           "LOCALHOST", "localhost.", "lOcAlHoSt", "localhost.localdomain", "ip6-localhost", "ⓛocalhost", "loc%61lhost", "localho\tst", "0", "0x0", "00"]
WHOLE = ["//127.0.0.1:{port}/", "http:127.0.0.1:{port}/", "https:/127.0.0.1:{port}/", "https:\\\\127.0.0.1:{port}\\", "https://example.com\\@127.0.0.1:{port}/",
         "https://127.0.0.1:{port}\\@example.com/", "ftp://127.0.0.1:{port}/", "gopher://127.0.0.1:{port}/_x", "file:///etc/passwd", "javascript:alert(1)",
         "data:text/plain,x", "ws://127.0.0.1:{port}/", "unix:///run/x.sock", " https://127.0.0.1:{port}/ ", "https://127.0.0.1:{port}#@example.com/",
         "https://[::ffff:127.0.0.1%25lo]:{port}/", "https://127.0.0.1:{port}?@example.com", "ht\ntps://127.0.0.1:{port}/", "https://127.0.0.1:00{port}/", "HTTPS://127.0.0.1:{port}/"]


def hostile(port):
    """All of them, each once."""
    hosts = [spelling for address in own_addresses() for spelling in spellings(address)] + LITERAL + NAMES
    found = [f"{scheme}://{host}:{port}/hook" for host in hosts for scheme in ("https", "http")]
    found += [f"https://{host}/hook" for host in ("127.0.0.1", "2130706433", "[::1]", "localhost", *NAMES)]
    return list(dict.fromkeys(found + [whole.format(port=port) for whole in WHOLE]))


def hosts(path, rebound):
    with open(path, "w") as file:
        file.write("127.0.0.1 localhost inside.example localhost.example xn--nside-3sa.example\n::1 ip6-localhost inside.example\n8.8.8.8 both.example\n"
                   f"127.0.0.1 both.example\n::ffff:127.0.0.1 mapped.example\n{rebound} rebound.example\n")


def said(service, event):
    return service.call("GET", f"/v1/events/{event}")[1]["dispatches"][0]["said"] or ""


@proves("G17", small=60, full=250, faults=["AnyAddress"])
def hostile_addresses(bench, least):
    """Whatever an address looks like, and wherever its name leads by then: nothing of ours is sent to an inside, not one packet."""
    names, canary = os.path.join(bench.folder, "hosts"), Canary()
    try:
        hosts(names, "8.8.8.8")
        urls = hostile(canary.port)
        require(len(urls) >= 250, f"there are {len(urls)} addresses only")
        urls = urls if least >= 250 else bench.chance.sample(urls, least) + [f"https://rebound.example:{canary.port}/hook"]
        with open(os.path.join(bench.folder, "config.toml"), "w") as file:
            file.write('[events]\nretry_schedule = ["1s"]\n')
        # Names are looked up in a file of our own, where that may be done.
        unshare = tool("unshare", "util-linux")
        named = subprocess.run([unshare, "-m", "mount", "--bind", names, "/etc/hosts"], capture_output=True).returncode == 0
        wrap = [unshare, "-m", "sh", "-c", 'mount --bind "$0" /etc/hosts && exec "$@"', names] if named else []
        sandbox = bench.sandbox("--speed", 1_000, "--status-reads-per-minute", 0)
        service = bench.serve(provider=sandbox.url, wrap=wrap, **QUIET)
        bought, refused = {}, 0
        for url in urls:
            order = {"prompt": "a boat [sandbox: takes=4]", "callback_url": url}
            status, answer, headers = service.call("POST", "/gateway/v1/kling/o3-video/generate", order)
            require(status in (201, 400, 422), f"a purchase with {url!r} is answered {status}: {answer}")
            if status == 201:
                bought[headers["recoup-generation"]] = url
            else:
                refused += 1
        hosts(names, "127.0.0.1")
        page = {}

        def all_given_up():
            require(not canary.called, f"the canary was called: {canary.called[:1]}")
            cursor = ""
            while cursor is not None:
                _, answer, _ = service.call("GET", f"/v1/events?state=dead&limit=200{cursor and '&cursor=' + cursor}")
                page.update((event["id"], event) for event in answer["data"])
                cursor = answer["next_cursor"]
            return len(page) >= len(bought)
        until("every event is given up", all_given_up, 60, 0.2)
        why = {}
        for event in page:
            words = said(service, event)
            kind = next((kind for kind in ("egress rule", "https://", "user name", "could not connect") if kind in words), None)
            require(kind, f"an event was given up for another reason: {words}")
            why[kind] = why.get(kind, 0) + 1
        # A connection that was begun would be there by now.
        time.sleep(0.3)
        require(not canary.called, f"the canary was called: {canary.called[:1]}")
        elsewhere = "" if named else "; no names that lead elsewhere, which takes root"
        counted = ", ".join(f"{count} {kind}" for kind, count in sorted(why.items()))
        return f"{len(urls)} addresses: {refused} refused before a purchase, {len(bought)} bought and told to nobody ({counted}); 0 connections to the canary{elsewhere}"
    finally:
        canary.close()


@proves("G17", small=5, full=5, faults=["RedirectsFollowed"])
def redirected(bench, kinds):
    """An endpoint that redirects is not followed, wherever it leads."""
    canary, asked = Canary(), []
    door = socket.create_server(("127.0.0.1", 0), backlog=64)
    codes = [301, 302, 303, 307, 308][:kinds]

    def redirects():
        while True:
            try:
                connection, _ = door.accept()
            except OSError:
                return
            with contextlib.suppress(OSError):
                connection.settimeout(2)
                connection.recv(65_536)
                code = codes[len(asked) % len(codes)]
                asked.append(code)
                connection.sendall(f"HTTP/1.1 {code} Elsewhere\r\nlocation: http://127.0.0.1:{canary.port}/inside\r\ncontent-length: 0\r\nconnection: close\r\n\r\n".encode())
            connection.close()
    threading.Thread(target=redirects, daemon=True).start()
    try:
        with open(os.path.join(bench.folder, "config.toml"), "w") as file:
            file.write('[events]\nretry_schedule = ["1s"]\nallow_private_addresses = true\n')
        sandbox = bench.sandbox("--speed", 1_000, "--status-reads-per-minute", 0)
        service = bench.serve(provider=sandbox.url, **QUIET)
        for _ in codes:
            order = {"prompt": "a boat [sandbox: takes=1]", "callback_url": f"http://127.0.0.1:{door.getsockname()[1]}/hook"}
            require(service.call("POST", "/gateway/v1/kling/o3-video/generate", order)[0] == 201, "a purchase is refused")

        def given_up():
            require(not canary.called, f"a redirect was followed: {canary.called[:1]}")
            return len(service.call("GET", "/v1/events?state=dead")[1]["data"]) == len(codes)
        until("every event is given up", given_up, 30)
        require(len(asked) == 2 * len(codes), f"asked {len(asked)} times")
        return f"{len(asked)} answers of {len(set(asked))} kinds of redirect, none followed"
    finally:
        door.close()
        canary.close()
