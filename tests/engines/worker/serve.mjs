// Miniflare with the companion Worker on its real D1 binding, until a signal ends it. Says nothing to anybody: it listens
// on the loopback address and fetches nothing.  node serve.mjs '{modules, directory, port, date, bindings, database}'
import { readFileSync } from "node:fs";
import { createRequire } from "node:module";
import { join } from "node:path";

const given = JSON.parse(process.argv[2]);
const { Miniflare, Log, LogLevel } = createRequire(`${given.modules}/`)("miniflare");
const module = (path) => ({ type: "ESModule", path, contents: readFileSync(join(given.directory, path), "utf8") });
const miniflare = new Miniflare({
  host: "127.0.0.1",
  port: given.port,
  log: new Log(LogLevel.ERROR),
  cf: false,
  modules: [module("watched.mjs"), module("worker.mjs")],
  compatibilityDate: given.date,
  d1Databases: { DB: given.database },
  bindings: given.bindings,
});
for (const signal of ["SIGTERM", "SIGINT"]) process.on(signal, () => miniflare.dispose().finally(() => process.exit(0)));
await miniflare.ready;
