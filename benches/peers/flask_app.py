"""The provider's documented way: a Flask handler, here with SQLite, one commit each, full sync. See benches/ingest.py."""
import hashlib, hmac, sqlite3, threading, time

from flask import Flask, request

app, local = Flask(__name__), threading.local()


def database():
    if not hasattr(local, "connection"):
        local.connection = sqlite3.connect("flask.db", timeout=30, isolation_level=None)
        local.connection.execute("PRAGMA journal_mode = WAL")
        local.connection.execute("PRAGMA synchronous = FULL")
        local.connection.execute(
            "CREATE TABLE IF NOT EXISTS webhooks (id INTEGER PRIMARY KEY, at REAL, generation_id TEXT, status TEXT, url TEXT, body BLOB)")
    return local.connection


@app.post("/<path:_path>")
def webhook(_path):
    hmac.compare_digest(hmac.digest(b"a secret of the benchmark", b"kling-o3-video standing", hashlib.sha256), bytes(32))
    body = request.get_data()
    notice = request.get_json(force=True)
    database().execute(
        "INSERT INTO webhooks (at, generation_id, status, url, body) VALUES (?, ?, ?, ?, ?)",
        (time.time(), notice["generation_id"], notice["status"], notice.get("video_url"), body))
    return "", 200
