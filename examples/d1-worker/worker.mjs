// The companion Worker: it stands beside a D1 database and speaks as D1's REST API does, so that dal needs nothing but
// another address. Through it there is no limit of requests per five minutes, the way is shorter, and a client reads
// its own writes also where D1 has read replicas: every answer carries a bookmark, and who sends it back with the next
// request sees at least that state.
//
//   POST …/database/DATABASE_ID/raw   {"sql": "…", "params": […]}  or  {"batch": [{"sql": "…", "params": […]}, …]}
//   → {"success": true, "errors": [], "messages": [], "result": [{"results": {"columns", "rows"}, "success", "meta"}, …]}
//
// A batch is one transaction, all or none. Nothing here looks at the SQL: who holds the token may do anything with the
// database, as with an API token of D1. Without a TOKEN nobody may.

const BOOKMARK = "x-d1-bookmark";
const MAX_BODY_BYTES = 32 * 1024 * 1024; // the most that D1 is sent at once; dal sends less

export default {
  async fetch(request, env) {
    const given = request.headers.get("authorization") ?? "";
    if (!env.TOKEN || !(await sameText(given, `Bearer ${env.TOKEN}`))) return failure(401, 10000, "Authentication error");
    // One Worker serves one database: a client that means another one must not write into this.
    const path = new URL(request.url).pathname;
    if (!path.endsWith(`/database/${env.DATABASE_ID}/raw`)) return failure(404, 7404, "No such database behind this Worker");
    if (request.method !== "POST") return failure(405, 7001, "Method not allowed");

    const text = await body(request);
    if (text === null) return failure(413, 7400, "The body is too large");
    // Without a bookmark the first read goes to the primary: a client that has none may have written elsewhere.
    const session = env.DB.withSession(request.headers.get(BOOKMARK) || "first-primary");
    let prepared;
    try {
      prepared = statements(JSON.parse(text)).map(({ sql, params }) => session.prepare(sql).bind(...params));
    } catch (error) {
      return failure(400, 7400, `The request is malformed: ${error.message}`);
    }
    try {
      const answers = await session.batch(prepared);
      const result = answers.map(({ results, success, meta }) => ({ results: table(results ?? []), success, meta }));
      return Response.json(
        { success: true, errors: [], messages: [], result },
        { headers: { [BOOKMARK]: session.getBookmark() ?? "" } },
      );
    } catch (error) {
      const said = String(error?.message ?? error).replace(/^(?:D1_[A-Z_]+: )+/, "");
      // What SQLite says of a statement ends with its code; everything else is trouble of the platform.
      return failure(/: SQLITE_[A-Z_]+/.test(said) ? 400 : 500, 7500, said);
    }
  },
};

// The body as text; null where it is too large, which its sender need not have said.
async function body(request) {
  const parts = [];
  let size = 0;
  for await (const part of request.body ?? []) {
    size += part.byteLength;
    if (size > MAX_BODY_BYTES) return null;
    parts.push(part);
  }
  return new Blob(parts).text();
}

function statements(asked) {
  const batch = Array.isArray(asked?.batch) ? asked.batch : [asked];
  if (batch.length === 0) throw new Error("the batch is empty");
  return batch.map((each) => {
    if (typeof each?.sql !== "string") throw new Error("sql is required");
    if (each.params != null && !Array.isArray(each.params)) throw new Error("params must be an array");
    return { sql: each.sql, params: each.params ?? [] };
  });
}

// The binding gives rows as objects. Their keys are the columns in order: dal never asks for two of one name.
function table(rows) {
  const columns = rows.length ? Object.keys(rows[0]) : [];
  return { columns, rows: rows.map((row) => columns.map((column) => row[column])) };
}

// Takes as long for a wrong text as for the right one, whatever their lengths: digests are compared.
async function sameText(given, expected) {
  const digest = (text) => crypto.subtle.digest("SHA-256", new TextEncoder().encode(text));
  return crypto.subtle.timingSafeEqual(await digest(given), await digest(expected));
}

function failure(status, code, message) {
  return Response.json({ success: false, errors: [{ code, message }], messages: [], result: null }, { status });
}
