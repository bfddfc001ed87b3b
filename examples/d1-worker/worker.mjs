// The companion Worker: it stands beside a D1 database and speaks as D1's REST API does, so that dal needs nothing but
// another address. Through it there is no limit of requests per five minutes, the way is shorter, and a client reads
// its own writes also where D1 has read replicas: every answer carries a bookmark, and who sends it back with the next
// request sees at least that state.
//
//   POST …/raw   {"sql": "…", "params": […]}  or  {"batch": [{"sql": "…", "params": […]}, …]}
//   → {"success": true, "errors": [], "messages": [], "result": [{"results": {"columns", "rows"}, "success", "meta"}, …]}
//
// A batch is one transaction, all or none. Nothing here looks at the SQL: who holds the token may do anything with the
// database, as with an API token of D1.

const BOOKMARK = "x-d1-bookmark";
const MAX_BODY_BYTES = 50_000_000;

export default {
  async fetch(request, env) {
    if (!env.TOKEN || !sameText(bearer(request), env.TOKEN)) return failure(401, 10000, "Authentication error");
    if (request.method !== "POST") return failure(405, 7001, "Method not allowed");
    if (!new URL(request.url).pathname.endsWith("/raw")) return failure(404, 7003, "Could not route to this path");
    if (Number(request.headers.get("content-length")) > MAX_BODY_BYTES) return failure(413, 7400, "The body is too large");

    let asked;
    try {
      asked = statements(await request.json());
    } catch (error) {
      return failure(400, 7400, `The request is malformed: ${error.message}`);
    }
    // Without a bookmark the first read goes to the primary: a client that has none may have written elsewhere.
    const session = env.DB.withSession(request.headers.get(BOOKMARK) ?? "first-primary");
    try {
      const prepared = asked.map(({ sql, params }) => session.prepare(sql).bind(...params));
      const answers = await session.batch(prepared);
      const result = answers.map(({ results, success, meta }) => ({ results: table(results ?? []), success, meta }));
      const bookmark = session.getBookmark();
      return Response.json(
        { success: true, errors: [], messages: [], result },
        { headers: bookmark ? { [BOOKMARK]: bookmark } : {} },
      );
    } catch (error) {
      const said = String(error?.message ?? error).replace(/^(?:D1_[A-Z_]+: )+/, "");
      // What SQLite says of a statement ends with its code; everything else is trouble of the platform.
      return failure(/: SQLITE_[A-Z_]+/.test(said) ? 400 : 500, 7500, said);
    }
  },
};

function statements(body) {
  const asked = Array.isArray(body?.batch) ? body.batch : [body];
  if (asked.length === 0) throw new Error("the batch is empty");
  return asked.map((each) => {
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

function bearer(request) {
  return (request.headers.get("authorization") ?? "").replace(/^Bearer /, "");
}

// Takes as long for a wrong token as for the right one.
function sameText(given, expected) {
  const [a, b] = [given, expected].map((text) => new TextEncoder().encode(text));
  const same = a.byteLength === b.byteLength;
  return crypto.subtle.timingSafeEqual(same ? a : b, b) && same;
}

function failure(status, code, message) {
  return Response.json({ success: false, errors: [{ code, message }], messages: [], result: null }, { status });
}
