"""What the service has kept: a copy made by `recoup backup` while it runs, and questions to that copy."""
import hashlib, os, sqlite3, subprocess, time, uuid

from common import SECRET, require

# Written by looking: readiness makes a write to see whether one can be made.
NOT_CONTENT = {"heartbeat", "_sqlx_migrations"}


def copy(bench, service, name):
    """A consistent copy of the service's database; SQLite's own check has passed on it."""
    path = os.path.join(bench.folder, f"{name}.db")
    environment = {"PATH": os.environ["PATH"], "RECOUP_DATABASE__URL": f"sqlite://{service.folder}/recoup.db", "RECOUP_WEBHOOK__SECRETS": SECRET}
    made = subprocess.run([bench.binary, "backup", path], env=environment, capture_output=True, text=True)
    require(made.returncode == 0, f"no backup: {made.stderr[-500:]}")
    database = sqlite3.connect(path)
    database.text_factory = bytes
    return database


def contents(bench, service, name):
    """Of every table of such a copy its number of rows, and a hash over all of them."""
    # What webhooks taught is written down with the first write that comes 10 ms later; readiness makes one.
    time.sleep(0.02)
    require(service.call("GET", "/readyz")[0] == 200, "it is not ready")
    database, found = copy(bench, service, name), {}
    names = [name.decode() for (name,) in database.execute("SELECT name FROM sqlite_schema WHERE type = 'table' AND name NOT LIKE 'sqlite_%'")]
    for name in sorted(set(names) - NOT_CONTENT):
        rows = sorted(repr(row) for row in database.execute(f'SELECT * FROM "{name}"'))
        found[name] = (len(rows), hashlib.sha256("\n".join(rows).encode()).hexdigest())
    return found


def ids(database):
    """The provider's ids of all generations."""
    rows = database.execute("SELECT typeof(provider_id), provider_id FROM generations WHERE provider_id IS NOT NULL")
    return {str(uuid.UUID(bytes=kept)) if kind == b"blob" else kept.decode() for kind, kept in rows}


def halves(database):
    """What is not whole: settled without an event, a delivery without its body or its generation, counts that are not those of the rows."""
    asked = {
        "settled without an event": "SELECT count(*) FROM generations WHERE status IN (7, 8) AND events = 0",
        "events that are not counted": "SELECT count(*) FROM generations g WHERE events <> (SELECT count(*) FROM events e WHERE e.generation = g.id)",
        "deliveries that are not counted": "SELECT count(*) FROM generations g WHERE deliveries <> "
        "(SELECT count(*) FROM deliveries d WHERE d.generation = g.id)",
        "accepted deliveries of nothing": "SELECT count(*) FROM deliveries WHERE disposition = 1 AND generation IS NULL",
        "deliveries without a body": "SELECT count(*) FROM deliveries d WHERE NOT EXISTS (SELECT 1 FROM bodies b WHERE b.delivery = d.id)",
    }
    return {what: count for what, question in asked.items() if (count := database.execute(question).fetchone()[0])}
