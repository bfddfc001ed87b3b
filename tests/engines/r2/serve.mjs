// Miniflare with one R2 bucket behind its S3 endpoint, which checks signatures, until a signal ends it. Says nothing to
// anybody: it listens on the loopback address and fetches nothing.  node serve.mjs '{modules, port, bucket, key, secret}'
import { createRequire } from "node:module";

const given = JSON.parse(process.argv[2]);
const { Miniflare, Log, LogLevel } = createRequire(`${given.modules}/`)("miniflare");
const miniflare = new Miniflare({
  host: "127.0.0.1",
  port: given.port,
  log: new Log(LogLevel.NONE),
  cf: false,
  modules: true,
  script: "export default { fetch() { return new Response('up'); } };",
  compatibilityDate: "2026-07-01",
  r2Buckets: { FILES: { id: given.bucket, s3Credentials: { accessKeyId: given.key, secretAccessKey: given.secret } } },
  r2Persist: given.data,
  unsafeLocalExplorer: true,
});
for (const signal of ["SIGTERM", "SIGINT"]) process.on(signal, () => miniflare.dispose().finally(() => process.exit(0)));
await miniflare.ready;
