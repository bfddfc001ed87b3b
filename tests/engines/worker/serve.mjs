// Miniflare with the companion Worker on its real D1 binding, until a signal ends it. Says nothing to anybody: it listens
// on the loopback address and fetches nothing. `node serve.mjs '{"modules", "worker", "port", "token", "database"}'`
import { readFileSync } from "node:fs";
import { createRequire } from "node:module";

const given = JSON.parse(process.argv[2]);
const { Miniflare, Log, LogLevel } = createRequire(`${given.modules}/`)("miniflare");
const miniflare = new Miniflare({
  host: "127.0.0.1",
  port: given.port,
  log: new Log(LogLevel.ERROR),
  cf: false,
  modules: [{ type: "ESModule", path: "worker.mjs", contents: readFileSync(given.worker, "utf8") }],
  compatibilityDate: given.date,
  d1Databases: { DB: given.database },
  bindings: given.token === null ? { DATABASE_ID: given.database } : { DATABASE_ID: given.database, TOKEN: given.token },
});
for (const signal of ["SIGTERM", "SIGINT"]) process.on(signal, () => miniflare.dispose().finally(() => process.exit(0)));
await miniflare.ready;
