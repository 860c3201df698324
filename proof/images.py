"""Power loss: a service's system calls, as strace writes them down, replayed into what a disk may hold after the power is gone.

Kept for certain is what was written to a file before a sync of that file began that ended in time; of names, what was done before a sync of
the folder. Of everything else any part may be there: nothing, all, some of the writes, some sectors of a write.
"""
import os, re, sqlite3

SECTOR = 512
CALLS = "openat,close,pwrite64,write,writev,ftruncate,fsync,fdatasync,unlink,rename"
LINE = re.compile(r"^(\d+) +(?:<\.\.\. (\w+) resumed>(.*)|(\w+)\((.*))$", re.S)
# Others went on, or the process ended within it.
INTERRUPTED = re.compile(r" +<(unfinished|detached) \.\.\.>")
ACKNOWLEDGED = re.compile(rb"HTTP/1\.1 200 .*?x-request-id: ([!-~]+)", re.S | re.I)


def unhex(text):
    return bytes.fromhex(text.replace("\\x", ""))


def quoted(text):
    return [unhex(part) for part in re.findall(r'"((?:\\x[0-9a-f]{2})*)"', text)]


def calls(log):
    """(thread, call, arguments, result or None while it is under way), in their order: each twice where it was interrupted by others."""
    with open(log) as lines:
        under_way = {}
        for line in lines:
            found = LINE.match(line.rstrip("\n"))
            if not found:
                continue
            thread, resumed, rest, name, arguments = found.groups()
            if resumed:
                begun = under_way.pop(thread, None)
                if begun:
                    yield thread, begun[0], begun[1] + rest, result(rest)
            elif interrupted := INTERRUPTED.search(arguments):
                under_way[thread] = name, arguments[:interrupted.start()]
                yield thread, *under_way[thread], None
            else:
                yield thread, name, arguments, result(arguments)


def result(text):
    found = re.search(r"\) += (-?\d+|0x[0-9a-f]+|\?)[^=]*$", text)
    return int(found.group(1), 0) if found and found.group(1) != "?" else -1


def steps(log, folder):
    r"""What matters of a trace: ("write", inode, offset, bytes), ("cut", inode, length), ("begin" and "end", thread, inode) of a sync, ("name", name, inode),
    ("sync folder" in two steps with the inode None), ("answer", mark). Writes count from when they began.

    A write that others interrupted, and writes and a sync in which the process ended:

    >>> import tempfile
    >>> with tempfile.NamedTemporaryFile("w") as log:
    ...     _ = log.write(r'''7 openat(AT_FDCWD, "\x2f\x64\x2f\x66", O_RDWR) = 5
    ... 7 pwrite64(5, "\x61", 1, 4096 <unfinished ...>
    ... 8 pwrite64(5, "\x62", 1, 8192) = 1
    ... 7 <... pwrite64 resumed>) = 1
    ... 7 pwrite64(5, "\x63", 1, 12288 <unfinished ...>) = ?
    ... 9 pwrite64(5, "\x64", 1, 16384 <detached ...>
    ... 8 fsync(5 <unfinished ...>
    ... 8 <... fsync resumed> <unfinished ...>) = ?
    ... ''')
    ...     log.flush()
    ...     steps(log.name, "/d")  # doctest: +NORMALIZE_WHITESPACE
    [('name', 'f', 1), ('write', 1, 4096, b'a'), ('write', 1, 8192, b'b'), ('write', 1, 12288, b'c'),
     ('write', 1, 16384, b'd'), ('begin', '8', 1)]
    """
    folder, names, open_files, inodes, begun, found = folder.encode(), {}, {}, 0, set(), []

    def ours(path):
        return os.path.basename(path).decode() if os.path.dirname(path) == folder else None

    for thread, name, arguments, came in calls(log):
        resumed = came is not None and (thread, name) in begun
        begun.discard((thread, name))
        if came is None:
            begun.add((thread, name))
        if name == "openat" and came is not None and came >= 0:
            path = quoted(arguments)[0]
            if path == folder:
                open_files[came] = None
            elif (file := ours(path)) is not None:
                if file not in names:
                    inodes += 1
                    names[file] = inodes
                    found.append(("name", file, inodes))
                open_files[came] = names[file]
            else:
                open_files.pop(came, None)
        elif name == "close" and came is not None:
            open_files.pop(int(arguments.split(")")[0]), None)
        elif name in ("unlink", "rename") and came == 0:
            paths = [ours(path) for path in quoted(arguments)]
            inode = names.pop(paths[0], None) if paths[0] else None
            if inode:
                found.append(("name", paths[0], None))
                if name == "rename":
                    names[paths[1]] = inode
                    found.append(("name", paths[1], inode))
        elif name in ("pwrite64", "write", "writev", "ftruncate", "fsync", "fdatasync"):
            number = int(re.match(r"\d+", arguments).group())
            if name in ("fsync", "fdatasync"):
                if number in open_files:
                    if not resumed:
                        found.append(("begin", thread, open_files[number]))
                    if came == 0:
                        found.append(("end", thread, open_files[number]))
            elif resumed:
                continue
            elif number in open_files and open_files[number] is not None:
                inode = open_files[number]
                if name == "pwrite64":
                    found.append(("write", inode, int(re.search(r", (\d+)\)? *(?:=.*)?$", arguments).group(1)), quoted(arguments)[0]))
                elif name == "ftruncate":
                    found.append(("cut", inode, int(re.search(r", (\d+)", arguments).group(1))))
            elif name in ("writev", "write"):
                sent = b"".join(quoted(arguments)) if "\\x48\\x54\\x54\\x50" in arguments else b""
                found += [("answer", mark.decode()) for mark in ACKNOWLEDGED.findall(sent)]
    return found


class Disk:
    """What is certainly there, and what may be."""

    def __init__(self):
        self.files, self.pending, self.names, self.renamed, self.syncing, self.acknowledged, self.nth = {}, {}, {}, [], {}, set(), 0

    def step(self, step):
        kind, self.nth = step[0], self.nth + 1
        if kind in ("write", "cut"):
            change = step[2:] if kind == "write" else (step[2], None)
            self.pending.setdefault(step[1], []).append((self.nth, change))
        elif kind == "name":
            self.renamed.append((self.nth, step[1:]))
        elif kind == "answer":
            self.acknowledged.add(step[1])
        elif kind == "begin":
            self.syncing[step[1]] = self.nth
        elif kind == "end":
            self.sync(step[2], self.syncing.pop(step[1], 0))

    def sync(self, inode, before):
        if inode is None:
            for at, change in self.renamed:
                if at < before:
                    self.name(self.names, *change)
            self.renamed = [one for one in self.renamed if one[0] >= before]
            return
        content, pending = self.files.setdefault(inode, bytearray()), self.pending.get(inode, [])
        for at, change in pending:
            if at < before:
                apply(content, *change)
        self.pending[inode] = [one for one in pending if one[0] >= before]

    @staticmethod
    def name(names, name, file):
        if file is None:
            names.pop(name, None)
        else:
            names[name] = file

    def image(self, chance, how):
        """Files by name. `how`: nothing of what is pending, all of it, some, or some sectors."""
        names = dict(self.names)
        kept = {"none": 0, "all": len(self.renamed)}.get(how, chance.randint(0, len(self.renamed)))
        for _, change in self.renamed[:kept]:
            self.name(names, *change)
        image = {}
        for name, inode in names.items():
            content = bytearray(self.files.get(inode, b""))
            share = chance.random()
            for _, change in self.pending.get(inode, ()):
                if how == "all" or (how != "none" and chance.random() < share):
                    if how == "torn" and change[1] is not None:
                        tear(content, chance, *change)
                    else:
                        apply(content, *change)
            image[name] = content
        return image


def apply(content, offset, written):
    if written is None:
        if offset <= len(content):
            del content[offset:]
        else:
            content.extend(bytes(offset - len(content)))
        return
    if len(content) < offset:
        content.extend(bytes(offset - len(content)))
    content[offset:offset + len(written)] = written


def tear(content, chance, offset, written):
    """Some sectors of a write."""
    end = offset + len(written)
    for start in range(offset - offset % SECTOR, end, SECTOR):
        if chance.random() < 0.5:
            low, high = max(start, offset), min(start + SECTOR, end)
            apply(content, low, written[low - offset:high - offset])


def recovered(image, folder, database):
    """What SQLite finds in an image: its word on it, and the provider's ids in it."""
    for name in os.listdir(folder):
        os.unlink(os.path.join(folder, name))
    for ending in ("", "-wal", "-journal"):
        if database + ending in image:
            with open(os.path.join(folder, database + ending), "wb") as file:
                file.write(image[database + ending])
    connection = sqlite3.connect(os.path.join(folder, database))
    try:
        found = connection.execute("PRAGMA integrity_check(1)").fetchone()[0]
        if not connection.execute("SELECT 1 FROM sqlite_schema WHERE name = 'bodies'").fetchone():
            return found, set()
        return found, {row[0] for row in connection.execute("SELECT provider_id FROM generations WHERE status >= 7")}
    except sqlite3.DatabaseError as error:
        return str(error), set()
    finally:
        connection.close()


def judge(found, folder, database, seed, positions):
    """Images at so many places of the trace; (how many, what was lost, what was corrupt), the last two as words of the first of each."""
    import random
    chance, disk, at, lost, corrupt = random.Random(seed), Disk(), 0, [], []
    for position in sorted(positions):
        while at < position:
            disk.step(found[at])
            at += 1
        how = chance.choice(["none", "some", "torn", "torn", "some", "all"])
        verdict, ids = recovered(disk.image(chance, how), folder, database)
        if verdict != "ok":
            corrupt.append(f"at step {position} ({how} of what was not synced): {verdict}")
        missing = disk.acknowledged - ids
        if missing:
            lost.append(f"at step {position} ({how} of what was not synced): {len(missing)} of {len(disk.acknowledged)}")
    return len(positions), lost, corrupt
