"""What was acknowledged is on disk: kills, crash points, power loss, faults of the disk, a second process."""
import time

from common import Broken, call, proves, require, webhook


@proves("G4", small=20, full=1_000, faults=["AcknowledgedUnkept", "AnsweredBeforeCommit"])
def kills(bench, times):
    """A webhook answered with 200 is there after kill -9, and the service is ready again within a second."""
    acknowledged, slowest_ms, nth = set(), 0.0, 0
    for _ in range(times):
        began = time.monotonic()
        service = bench.serve()
        slowest_ms = max(slowest_ms, (time.monotonic() - began) * 1e3)
        path = service.standing_path(bench)
        for _ in range(bench.chance.randrange(1, 12)):
            nth += 1
            status, _, _ = service.call("POST", path, webhook(f"k-{nth}" + "x" * (nth % 9)), key=None)
            require(status == 200, f"answered {status}")
            acknowledged.add(f"k-{nth}" + "x" * (nth % 9))
        service.kill()
    service = bench.serve()
    kept, cursor = set(), ""
    while cursor is not None:
        _, page, _ = service.call("GET", f"/v1/generations?limit=200{cursor and '&cursor=' + cursor}")
        kept |= {row["generation_id"] for row in page["data"]}
        cursor = page["next_cursor"]
    require(acknowledged <= kept, f"{len(acknowledged - kept)} of {len(acknowledged)} acknowledged webhooks are lost")
    return f"{times} kills, {len(acknowledged):,} acknowledged, 0 lost; ready after {slowest_ms:.0f} ms at most"
