/**
 * The live page's routes: its files, its login, and what it asks for while it is open.
 *
 * @module
 */

import { readFile } from "node:fs/promises";
import { join } from "node:path";
import type { FastifyInstance, FastifyReply } from "fastify";
import { type Table, tableNames } from "../io.ts";
import { paths } from "../lake/files.ts";
import { Refusal, retryAfter } from "./errors.ts";
import type { Guard } from "./guard.ts";
import { jsonType, readBody, takes } from "./intake.ts";
import type { LiveStatus } from "./live.ts";
import { openRejects } from "./rejects.ts";

const types = { html: "text/html", css: "text/css", js: "text/javascript", svg: "image/svg+xml" };
const files = ["index.html", "login.html", "no-report.html", "page.css", "page.js", "login.js", "icon.svg"];
const folder = new URL("./static/", import.meta.url);

/** Nothing but the page's own files, and no text ever becomes markup. */
const pagePolicy = [
  "default-src 'none'",
  ...["script", "style", "img", "connect"].map((kind) => `${kind}-src 'self'`),
  "frame-ancestors 'none'",
  "base-uri 'none'",
  "form-action 'none'",
  "require-trusted-types-for 'script'",
  "trusted-types 'none'",
].join("; ");

/** The report is one file with its styles and pictures in it. It runs no script. */
const reportPolicy =
  "default-src 'none'; style-src 'unsafe-inline'; img-src data:; font-src data:; frame-ancestors 'none'; base-uri 'none'; form-action 'none'; sandbox allow-popups";

/** Pages that may watch at once; what one has not read yet, bytes, before it is dropped. */
const mostWatchers = 50;
const mostUnread = 1_000_000;

/** What the routes stand on. */
export interface PageOptions {
  lake: string;
  live: LiveStatus;
  guard: Guard;
  needsToken: boolean;
}

type SendFile = (reply: FastifyReply, name: string) => FastifyReply;

/** Adds `/`, `/page/…`, `/login`, `/logout`, `/events`, `/status`, `/rejects` and `/report`. */
export async function addPage(app: FastifyInstance, options: PageOptions): Promise<{ endStreams: () => void }> {
  const sendFile = await addFiles(app);
  addLogin(app, options, sendFile);
  addRejects(app, options);
  addReport(app, options, sendFile);
  app.get("/status", () => options.live.snapshot(1_000));
  return addEvents(app, options);
}

/** Adds the files, and returns what sends one of them. */
async function addFiles(app: FastifyInstance): Promise<SendFile> {
  const contents = new Map<string, Buffer>();
  for (const name of files) contents.set(name, await readFile(new URL(name, folder)));
  const sendFile: SendFile = (reply, name) => {
    const type = types[name.slice(name.lastIndexOf(".") + 1) as keyof typeof types];
    return reply
      .headers({ "content-type": `${type}; charset=utf-8`, "content-security-policy": pagePolicy })
      .send(contents.get(name));
  };
  app.get("/", async (_request, reply) => sendFile(reply, "index.html"));
  app.get("/page/:file", async (request, reply) => {
    const { file } = request.params as { file: string };
    if (!contents.has(file)) throw new Refusal(404, "There is no such file");
    return sendFile(reply, file);
  });
  return sendFile;
}

function addLogin(app: FastifyInstance, { guard, needsToken }: PageOptions, sendFile: SendFile): void {
  app.get("/login", async (_request, reply) => (needsToken ? sendFile(reply, "login.html") : reply.redirect("/", 303)));
  app.post("/login", { preParsing: takes(jsonType) }, async (request, reply) => {
    const body = JSON.parse(readBody(request)) as { token?: unknown } | null;
    await guard.logIn(body?.token, reply);
    return reply.code(204).send();
  });
  app.post("/logout", async (request, reply) => {
    guard.logOut(request, reply);
    return reply.code(204).send();
  });
}

/** Adds the stream of snapshots; the function returned ends all that are open. */
function addEvents(app: FastifyInstance, { live, guard }: PageOptions): { endStreams: () => void } {
  const streams = new Set<FastifyReply>();
  app.get("/events", async (request, reply) => {
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
    write("retry: 2000\n\n");
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
  app.get("/rejects", async (request) => {
    const { table, reason } = request.query as Record<string, unknown>;
    if (table !== undefined && !tableNames.includes(table as Table))
      throw new Refusal(400, `"table" must be one of ${tableNames.join(", ")}`);
    if (reason !== undefined && !/^[a-z_]{1,40}$/.test(String(reason)))
      throw new Refusal(400, `"reason" must be one reason`);
    const which = {
      ...(table !== undefined && { table: table as Table }),
      ...(reason !== undefined && { reason: String(reason) }),
    };
    return { rejects: await rejects.newest(which) };
  });
  app.get("/rejects/:table/:partition/:offset", async (request) => {
    const { table, partition, offset } = request.params as Record<string, string>;
    const valid =
      tableNames.includes(table as Table) && /^\d{1,9}$/.test(partition ?? "") && /^\d{1,18}$/.test(offset ?? "");
    const found = valid ? await rejects.find(table as Table, Number(partition), offset as string) : undefined;
    if (!found) throw new Refusal(404, "There is no such reject");
    return found;
  });
}

function addReport(app: FastifyInstance, { lake }: PageOptions, sendFile: SendFile): void {
  app.get("/report", async ({ headers }, reply) => {
    const html = await readFile(join(paths(lake).gold, "report.html")).catch((error: NodeJS.ErrnoException) => {
      if (error.code !== "ENOENT") throw error;
    });
    if (!html) {
      if (headers.accept?.includes("text/html")) return sendFile(reply.code(404), "no-report.html");
      throw new Refusal(404, "There is no report yet: run report first");
    }
    return reply
      .headers({ "content-type": "text/html; charset=utf-8", "content-security-policy": reportPolicy })
      .send(html);
  });
}
