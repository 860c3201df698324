// The best peer a user might write instead: Fastify with better-sqlite3, one commit each, full sync. See benches/ingest.py.
import { createHmac, timingSafeEqual } from "node:crypto";
import Database from "better-sqlite3";
import fastify from "fastify";

const database = new Database("fastify.db");
database.pragma("journal_mode = WAL");
database.pragma("synchronous = FULL");
database.exec("CREATE TABLE webhooks (id INTEGER PRIMARY KEY, at INTEGER, generation_id TEXT, status TEXT, url TEXT, body BLOB)");
const keep = database.prepare("INSERT INTO webhooks (at, generation_id, status, url, body) VALUES (?, ?, ?, ?, ?)");

const app = fastify();
app.removeAllContentTypeParsers();
app.addContentTypeParser("*", { parseAs: "buffer" }, (_request, body, done) => done(null, body));
app.post("/*", (request, reply) => {
  timingSafeEqual(createHmac("sha256", "a secret of the benchmark").update("kling-o3-video standing").digest(), Buffer.alloc(32));
  const notice = JSON.parse(request.body);
  keep.run(Date.now(), notice.generation_id, notice.status, notice.video_url, request.body);
  reply.send("");
});
await app.listen({ port: Number(process.argv[2]), host: "127.0.0.1" });
