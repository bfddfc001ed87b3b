// D1's REST API over workerd's SQLite, the engine that hosted D1 runs on. What is ours is the thin layer of HTTP: the
// envelope, the authentication, the limits that the documents name and workerd does not keep, and faults on demand.
//
//   POST   /client/v4/accounts/A/d1/database                     {name}                    makes a database
//   GET    /client/v4/accounts/A/d1/database[?name=N]            lists them
//   GET    /client/v4/accounts/A/d1/database/D                   one of them; DELETE drops it
//   POST   /client/v4/accounts/A/d1/database/D/query             {sql, params} or {batch: [{sql, params}, …]}
//   POST   /client/v4/accounts/A/d1/database/D/raw               the same, rows as arrays
//   GET    /client/v4/accounts/A/d1/database/D/time_travel/bookmark
//   POST   /faults/D                                             [fault, …] for that database; [] takes them away
//   GET    /requests/D                                           how many queries that database was asked
//
// A fault: {when: "before" | "after" the commit, match, skip, count, delay_ms, drop, status, code, message, headers, body}.
// It concerns requests whose body contains `match`, lets `skip` of them pass and then happens `count` times. `drop` breaks
// the connection off, `body` is sent as it is; else the answer is an error of D1's with this status, code and message.
import { DurableObject } from "cloudflare:workers";

const MAX_VALUE_BYTES = 2_000_000;
const MAX_SQL_BYTES = 100_000;
const MAX_PARAMS = 100;
const PATH = /^\/client\/v4\/accounts\/([^/]+)\/d1\/database(?:\/([^/]+)(?:\/(query|raw|time_travel\/bookmark))?)?$/;
const bytes = new TextEncoder();

const ok = (result) => Response.json({ result, success: true, errors: [], messages: [] });
const refuse = (status, code, message, headers) =>
  Response.json({ result: null, success: false, errors: [{ code, message }], messages: [] }, { status, headers });

class Refusal extends Error {
  constructor(status, code, message) {
    super(message);
    this.status = status;
    this.code = code;
  }
}

function bound(value) {
  if (value === null || typeof value === "number") return value;
  if (typeof value === "boolean") return value ? 1 : 0;
  if (typeof value === "string") {
    if (value.length > MAX_VALUE_BYTES || bytes.encode(value).length > MAX_VALUE_BYTES)
      throw new Refusal(400, 7500, "string or blob too big: SQLITE_TOOBIG");
    return value;
  }
  if (Array.isArray(value)) return Uint8Array.from(value).buffer;
  throw new Refusal(400, 7400, "The request is malformed: a parameter of a type that D1 does not take");
}

function statementsOf(body) {
  const list = Array.isArray(body?.batch) ? body.batch : [body];
  if (list.length === 0) throw new Refusal(400, 7400, "The request is malformed: an empty batch");
  return list.map((entry) => {
    const { sql, params } = entry ?? {};
    if (typeof sql !== "string" || (params != null && !Array.isArray(params)))
      throw new Refusal(400, 7400, "The request is malformed: sql is text and params an array");
    if (bytes.encode(sql).length > MAX_SQL_BYTES) throw new Refusal(400, 7500, "statement too long: SQLITE_TOOBIG");
    if ((params?.length ?? 0) > MAX_PARAMS) throw new Refusal(400, 7500, "too many SQL variables: SQLITE_ERROR");
    return { sql, params: (params ?? []).map(bound) };
  });
}

export class Database extends DurableObject {
  #faults = [];
  #requests = 0;

  create(name) {
    this.ctx.storage.kv.put("name", name);
  }

  exists() {
    return this.ctx.storage.kv.get("name") !== undefined;
  }

  async drop() {
    await this.ctx.storage.deleteAll();
  }

  tables() {
    const sql = "SELECT count(*) AS n FROM sqlite_master WHERE type = 'table' AND name NOT LIKE '\\_cf%' ESCAPE '\\'";
    return { num_tables: this.ctx.storage.sql.exec(sql).one().n, file_size: this.ctx.storage.sql.databaseSize };
  }

  async bookmark() {
    return await this.ctx.storage.getCurrentBookmark();
  }

  arm(faults) {
    this.#faults = faults;
  }

  requests() {
    return this.#requests;
  }

  fault(text) {
    for (const fault of this.#faults) {
      if (fault.match !== undefined && !text.includes(fault.match)) continue;
      if ((fault.skip ?? 0) > 0) {
        fault.skip -= 1;
        return null;
      }
      if ((fault.count ?? 1) > 0) {
        fault.count = (fault.count ?? 1) - 1;
        return { ...fault };
      }
    }
    return null;
  }

  #run({ sql, params }, raw) {
    const engine = this.ctx.storage.sql;
    const before = engine.exec("SELECT total_changes() AS n").one().n;
    const cursor = engine.exec(sql, ...params);
    const columns = cursor.columnNames;
    const rows = Array.from(cursor.raw(), (row) =>
      row.map((value) => (value instanceof ArrayBuffer ? Array.from(new Uint8Array(value)) : value)),
    );
    const { rowsRead: rows_read, rowsWritten: rows_written } = cursor;
    const after = engine.exec("SELECT total_changes() AS n, last_insert_rowid() AS id").one();
    const results = raw ? { columns, rows } : rows.map((row) => Object.fromEntries(columns.map((c, i) => [c, row[i]])));
    const meta = {
      changes: after.n - before,
      changed_db: after.n !== before,
      last_row_id: after.id,
      rows_read,
      rows_written,
      size_after: engine.databaseSize,
      served_by: "workerd",
      duration: 0,
    };
    return { results, success: true, meta };
  }

  // Parses and runs a body; gives the answer's status and text, and the fault that is to befall it.
  async query(text, raw) {
    if (!this.exists()) return { status: 404, text: notFound() };
    this.#requests += 1;
    const fault = this.#faults.length ? this.fault(text) : null;
    if (fault?.delay_ms && fault.when !== "after") await new Promise((done) => setTimeout(done, fault.delay_ms));
    if (fault && fault.when !== "after" && speaks(fault)) return { fault };
    const answer = this.#answer(text, raw);
    if (fault?.when === "after") {
      await this.ctx.storage.sync();
      if (fault.delay_ms) await new Promise((done) => setTimeout(done, fault.delay_ms));
      if (speaks(fault)) return { fault };
    }
    return answer;
  }

  #answer(text, raw) {
    try {
      let body;
      try {
        body = JSON.parse(text);
      } catch {
        throw new Refusal(400, 7400, "The request is malformed: no JSON");
      }
      const statements = statementsOf(body);
      const result = this.ctx.storage.transactionSync(() => statements.map((statement) => this.#run(statement, raw)));
      return { status: 200, text: JSON.stringify({ result, success: true, errors: [], messages: [] }) };
    } catch (error) {
      const [status, code] = error instanceof Refusal ? [error.status, error.code] : [400, 7500];
      return { status, text: failure(code, error.message) };
    }
  }
}

const speaks = (fault) => fault.drop || fault.status !== undefined || fault.body !== undefined;
const failure = (code, message) =>
  JSON.stringify({ result: null, success: false, errors: [{ code, message }], messages: [] });
const notFound = () => failure(7404, "The database could not be found");

function struck(fault) {
  if (fault.drop) {
    // The answer has begun and never ends: the connection breaks off.
    const { readable, writable } = new FixedLengthStream(1000);
    const writer = writable.getWriter();
    writer.write(bytes.encode('{"result": [')).then(() => writer.abort(new Error("dropped")), () => {});
    return new Response(readable, { status: 200, headers: { "content-type": "application/json" } });
  }
  const text = fault.body ?? failure(fault.code ?? 7500, fault.message ?? "internal error");
  return new Response(text, {
    status: fault.status ?? 200,
    headers: { "content-type": "application/json", ...fault.headers },
  });
}

export class Directory extends DurableObject {
  constructor(context, env) {
    super(context, env);
    context.storage.sql.exec("CREATE TABLE IF NOT EXISTS databases (uuid TEXT PRIMARY KEY, name TEXT UNIQUE, created_at TEXT)");
  }

  add(name) {
    const row = { uuid: crypto.randomUUID(), name, created_at: new Date().toISOString() };
    const taken = this.ctx.storage.sql.exec("SELECT 1 FROM databases WHERE name = ?", name).toArray().length > 0;
    if (taken) return null;
    this.ctx.storage.sql.exec("INSERT INTO databases VALUES (?, ?, ?)", row.uuid, row.name, row.created_at);
    return { ...row, version: "production" };
  }

  find(uuid) {
    return this.ctx.storage.sql.exec("SELECT *, 'production' AS version FROM databases WHERE uuid = ?", uuid).toArray()[0];
  }

  list(name) {
    const where = name === null ? ["SELECT *, 'production' AS version FROM databases ORDER BY name"]
      : ["SELECT *, 'production' AS version FROM databases WHERE name = ?", name];
    return this.ctx.storage.sql.exec(...where).toArray();
  }

  remove(uuid) {
    this.ctx.storage.sql.exec("DELETE FROM databases WHERE uuid = ?", uuid);
  }
}

async function route(request, env) {
  const url = new URL(request.url);
  if (url.pathname === "/health") return ok("up");
  if (request.headers.get("authorization") !== `Bearer ${env.TOKEN}`) return refuse(401, 10000, "Authentication error");
  const database = (id) => env.DATABASES.get(env.DATABASES.idFromName(id));
  const own = url.pathname.match(/^\/(faults|requests)\/([^/]+)$/);
  if (own?.[1] === "faults") {
    await database(own[2]).arm(await request.json());
    return ok(null);
  }
  if (own) return ok(await database(own[2]).requests());

  const [, account, id, verb] = url.pathname.match(PATH) ?? [];
  if (account === undefined) return refuse(404, 7003, "Could not route to this path");
  if (account !== env.ACCOUNT) return refuse(403, 7403, "The given account is not valid or is not authorized");
  const directory = env.DIRECTORY.get(env.DIRECTORY.idFromName("all"));
  if (id === undefined) {
    if (request.method === "GET") {
      const found = await directory.list(url.searchParams.get("name"));
      return ok(found);
    }
    const { name } = await request.json();
    if (typeof name !== "string" || !/^[a-zA-Z0-9_-]+$/.test(name)) return refuse(400, 7400, "The request is malformed: name");
    const made = await directory.add(name);
    if (made === null) return refuse(400, 7502, `Database with name '${name}' already exists`);
    await database(made.uuid).create(name);
    return ok(made);
  }
  if (verb === "query" || verb === "raw") {
    if (request.method !== "POST") return refuse(405, 7001, "Method not allowed");
    const { status, text, fault } = await database(id).query(await request.text(), verb === "raw");
    return fault ? struck(fault) : new Response(text, { status, headers: { "content-type": "application/json" } });
  }
  const found = await directory.find(id);
  if (found === undefined) return refuse(404, 7404, "The database could not be found");
  if (verb === "time_travel/bookmark") return ok({ bookmark: await database(id).bookmark() });
  if (request.method === "DELETE") {
    await database(id).drop();
    await directory.remove(id);
    return ok(null);
  }
  return ok({ ...found, ...(await database(id).tables()) });
}

export default {
  async fetch(request, env) {
    try {
      return await route(request, env);
    } catch (error) {
      return refuse(500, 7500, String(error?.message ?? error));
    }
  },
};
