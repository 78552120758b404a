/**
 * The routes of the live page: its files, its login, and the data that it requests while it is open.
 *
 * @module
 */

import { readFile } from "node:fs/promises";
import { join } from "node:path";
import type { FastifyInstance, FastifyReply } from "fastify";
import { type Table, tableNames } from "../io.ts";
import { paths } from "../lake/files.ts";
import { ownFile } from "../runtime/program.ts";
import { readAnswers } from "./answers.ts";
import { Refusal, retryAfter } from "./errors.ts";
import type { Guard } from "./guard.ts";
import { jsonType, rawBody, readBody } from "./intake.ts";
import { addLiveSchemas, type LiveStatus } from "./live.ts";
import { empty, error, json, list, object, ok, ref, retry, text, tokenErrors } from "./openapi.ts";
import { addRejectSchemas, openRejects } from "./rejects.ts";

const types = { html: "text/html", css: "text/css", js: "text/javascript", svg: "image/svg+xml" };
const scripts = ["page.js", "dom.js", "charts.js", "state.js", "rejects.js", "login.js"];
const files = ["index.html", "login.html", "no-report.html", "page.css", ...scripts, "icon.svg"];

/** Allows only the page's own files, and never lets text become markup. */
const pagePolicy = [
  "default-src 'none'",
  ...["script", "style", "img", "connect"].map((kind) => `${kind}-src 'self'`),
  "frame-ancestors 'none'",
  "base-uri 'none'",
  "form-action 'none'",
  "require-trusted-types-for 'script'",
  "trusted-types 'none'",
].join("; ");

/** The report is one file that contains its styles and pictures and runs no script. */
const reportPolicy =
  "default-src 'none'; style-src 'unsafe-inline'; img-src data:; font-src data:; frame-ancestors 'none'; base-uri 'none'; form-action 'none'; sandbox allow-popups";

/** Most pages that watch at the same time, and most bytes that one leaves unread before it is dropped. */
const mostWatchers = 50;
const mostUnread = 1_000_000;

/** A snapshot that is not older serves a page that opens until the next one, ms. */
const fresh = 5_000;

const html = (description: string) => ok(description, text, "text/html");

/** The commands that the page lets people copy, as they are typed. */
export interface Commands {
  post: string;
  clean: string;
  rebuild: string;
  report: string;
  serve: string;
}

/** What the routes need. */
export interface PageOptions {
  lake: string;
  live: LiveStatus;
  guard: Guard;
  needsToken: boolean;
  commands: Commands;
}

type SendFile = (reply: FastifyReply, name: string) => FastifyReply;

/** Adds `/`, `/page/…`, `/login`, `/logout`, `/events`, `/status`, `/rejects`, `/answers` and `/report`. */
export async function addPage(app: FastifyInstance, options: PageOptions): Promise<{ endStreams: () => void }> {
  const sendFile = await addFiles(app);
  addLogin(app, options, sendFile);
  addRejects(app, options);
  addReport(app, options, sendFile);
  addLiveSchemas(app);
  addAnswers(app, options);
  const status = {
    summary: "How far each table is, and the latest posts",
    response: ok("A snapshot", ref("Snapshot")),
  };
  app.get("/status", { schema: status }, () => options.live.snapshot(1_000));
  return addEvents(app, options);
}

/** Adds the files, and returns a function that sends one of them. */
async function addFiles(app: FastifyInstance): Promise<SendFile> {
  const contents = new Map<string, Buffer>();
  for (const name of files) contents.set(name, ownFile(`http/static/${name}`));
  const sendFile: SendFile = (reply, name) => {
    const type = types[name.slice(name.lastIndexOf(".") + 1) as keyof typeof types];
    return reply
      .headers({ "content-type": `${type}; charset=utf-8`, "content-security-policy": pagePolicy })
      .send(contents.get(name));
  };
  const index = {
    summary: "The live page",
    response: { ...html("HTML"), "303": empty("To /login, if a token is needed") },
  };
  app.get("/", { schema: index }, async (_request, reply) => sendFile(reply, "index.html"));
  const one = {
    summary: "The page's files",
    security: [],
    response: { "200": empty("The file"), "404": error("No such file") },
  };
  app.get<{ Params: { file: string } }>("/page/:file", { schema: one }, async ({ params: { file } }, reply) => {
    if (!contents.has(file)) throw new Refusal(404, "There is no such file");
    return sendFile(reply, file);
  });
  return sendFile;
}

function addLogin(app: FastifyInstance, { guard, needsToken }: PageOptions, sendFile: SendFile): void {
  const page = {
    summary: "The login page",
    security: [],
    response: { ...html("HTML"), "303": empty("To /, if no token is needed") },
  };
  app.get("/login", { schema: page }, async (_request, reply) =>
    needsToken ? sendFile(reply, "login.html") : reply.redirect("/", 303),
  );
  const refusals = {
    ...tokenErrors(),
    "408": error("The body did not arrive in time"),
    "413": error("Body over 4 kB"),
  };
  const logIn = {
    summary: "Sets a session cookie for the token",
    security: [],
    body: json(object({ token: text })),
    response: { "204": empty("Logged in"), "400": error("Not JSON"), "415": error("Not JSON"), ...refusals },
  };
  app.post("/login", { ...rawBody(jsonType), schema: logIn }, async (request, reply) => {
    const body = JSON.parse(readBody(request)) as { token?: unknown } | null;
    await guard.logIn(body?.token, reply);
    return reply.code(204).send();
  });
  const logOut = {
    summary: "Ends the session of the cookie",
    security: [],
    response: { "204": empty("Logged out"), ...refusals },
  };
  app.post("/logout", { schema: logOut }, async (request, reply) => {
    guard.logOut(request, reply);
    return reply.code(204).send();
  });
}

/** Adds the stream of snapshots; the returned function ends all open streams. */
function addEvents(app: FastifyInstance, { live, guard, commands }: PageOptions): { endStreams: () => void } {
  const streams = new Set<FastifyReply>();
  const schema = {
    summary: "The status about once a second, as server-sent events",
    response: {
      ...ok(
        "First an event `start` whose data has `commands` to copy and the `history` of the chart; then events whose data is a Snapshot",
        text,
        "text/event-stream",
      ),
      "503": error("Too many pages are open", retry),
    },
  };
  app.get("/events", { schema }, async (request, reply) => {
    if (streams.size >= mostWatchers) throw new Refusal(503, "Too many pages are open", retryAfter(30));
    reply.hijack();
    const { raw } = reply;
    raw.writeHead(200, { ...(reply.getHeaders() as Record<string, string>), "content-type": "text/event-stream" });
    const write = (text: string) => {
      if (raw.writableLength > mostUnread) raw.destroy();
      else if (!guard.isLoggedIn(request)) raw.end();
      else raw.write(text);
    };
    const unwatch = live.watch((snapshot) => write(`data: ${JSON.stringify(snapshot)}\n\n`));
    write(`retry: 2000\nevent: start\ndata: ${JSON.stringify({ commands, history: live.history() })}\n\n`);
    const newest = live.newest();
    if (newest && Date.now() - newest.at < fresh) write(`data: ${JSON.stringify(newest)}\n\n`);
    const beat = setInterval(() => write(":\n\n"), 15_000);
    streams.add(reply);
    raw.on("close", () => {
      streams.delete(reply);
      clearInterval(beat);
      unwatch();
    });
  });
  return {
    endStreams: () => {
      for (const { raw } of streams) raw.end();
    },
  };
}

function addRejects(app: FastifyInstance, { lake }: PageOptions): void {
  const rejects = openRejects(lake);
  addRejectSchemas(app);
  const table = { enum: tableNames };
  const digits = (most: number) => ({ ...text, pattern: `^[0-9]{1,${most}}$` });
  const busy = { "503": error("Too many requests wait", retry) };
  const newest = {
    summary: "The newest rejected messages, 100 at most",
    querystring: { type: "object", properties: { table, reason: { ...text, pattern: "^[a-z_]{1,40}$" } } },
    response: {
      ...ok("Rejects", object({ rejects: list(ref("Reject")) })),
      "400": error("Unknown table or reason"),
      ...busy,
    },
  };
  const wanted: Record<string, string> = { table: `one of ${tableNames.join(", ")}`, reason: "one reason" };
  const wrong = ([found]: { instancePath: string }[]) => {
    const name = found?.instancePath.slice(1) ?? "";
    return new Refusal(400, `"${name}" must be ${wanted[name]}`);
  };
  app.get<{ Querystring: { table?: Table; reason?: string } }>(
    "/rejects",
    { schema: newest, schemaErrorFormatter: wrong },
    async ({ query }) => ({ rejects: await rejects.newest(query) }),
  );
  const unknown = () => new Refusal(404, "There is no such reject");
  const one = {
    summary: "One reject with its message unchanged",
    params: object({ table, partition: digits(9), offset: digits(18) }),
    response: { ...ok("The reject", ref("RejectWithMessage")), "404": error("No such reject"), ...busy },
  };
  app.get<{ Params: { table: Table; partition: string; offset: string } }>(
    "/rejects/:table/:partition/:offset",
    { schema: one, schemaErrorFormatter: unknown },
    async ({ params: { table, partition, offset } }) => {
      const found = await rejects.find(table, Number(partition), offset);
      if (!found) throw unknown();
      return found;
    },
  );
}

function addAnswers(app: FastifyInstance, { lake }: PageOptions): void {
  const schema = {
    summary: "The answers of the last report, 1,000 rows of each at most",
    response: { ...ok("Answers", object({ answers: list(ref("Answer")) })), "503": error("Cannot read them", retry) },
  };
  let reading: ReturnType<typeof readAnswers> | undefined;
  app.get("/answers", { schema }, async () => {
    reading ??= readAnswers(lake).finally(() => {
      reading = undefined;
    });
    // A report that runs may replace a file while it is read.
    const answers = await reading
      .catch(() => readAnswers(lake))
      .catch((error: Error) => {
        throw new Refusal(503, error.message, retryAfter(5));
      });
    return { answers };
  });
}

function addReport(app: FastifyInstance, { lake }: PageOptions, sendFile: SendFile): void {
  const schema = {
    summary: "The report page",
    response: {
      ...html("HTML"),
      "404": {
        description: "No report yet; an HTML page if the client accepts HTML",
        content: { ...error("").content, ...json(text, "text/html").content },
      },
    },
  };
  app.get("/report", { schema }, async ({ headers }, reply) => {
    const page = await readFile(join(paths(lake).gold, "report.html")).catch((error: NodeJS.ErrnoException) => {
      if (error.code !== "ENOENT") throw error;
    });
    if (!page) {
      if (headers.accept?.includes("text/html")) return sendFile(reply.code(404), "no-report.html");
      throw new Refusal(404, "There is no report yet: run the command report first");
    }
    return reply
      .headers({ "content-type": "text/html; charset=utf-8", "content-security-policy": reportPolicy })
      .send(page);
  });
}
