// The companion Worker as it is; its answers also tell, in a header, what session it asked the binding for.
import worker from "./worker.mjs";

export default {
  async fetch(request, env) {
    let session = "none";
    const DB = { withSession: (asked) => env.DB.withSession((session = asked)) };
    const answer = await worker.fetch(request, { ...env, DB });
    const watched = new Response(answer.body, answer);
    watched.headers.set("x-asked-session", session);
    return watched;
  },
};
