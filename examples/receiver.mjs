// npm install standardwebhooks
import { createServer } from "node:http";
import { Webhook } from "standardwebhooks";

const webhook = new Webhook(process.env.WEBHOOK_SECRET); // whsec_...

createServer(async (request, response) => {
  const chunks = [];
  for await (const chunk of request) chunks.push(chunk);
  let event;
  try {
    event = webhook.verify(Buffer.concat(chunks), request.headers);
  } catch {
    return response.writeHead(400).end();
  }
  // Keep it before you answer. The same webhook-id may come again; sequence orders what happened to one generation.
  console.log(request.headers["webhook-id"], event.type, event.sequence, event.data.id);
  response.writeHead(204).end();
}).listen(process.env.PORT, "127.0.0.1");
