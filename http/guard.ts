/**
 * Access control and limits: every request is checked before its body is read.
 *
 * @module
 */

import { createHash, randomBytes, timingSafeEqual } from "node:crypto";
import { isIP } from "node:net";
import { hostname } from "node:os";
import { setTimeout as sleep } from "node:timers/promises";
import type { FastifyInstance, FastifyReply, FastifyRequest } from "fastify";
import { openBodies } from "./bodies.ts";
import { bounds } from "./bounds.ts";
import { boundConnections } from "./connections.ts";
import { Refusal, retryAfter } from "./errors.ts";

const sessionHours = 12;
/** A session beyond these ends the oldest. */
const mostSessions = 1_000;
const cookieName = "pipeline_session";
const cookieRules = "Path=/; HttpOnly; SameSite=Strict";
/** Most wrong tokens that wait for their answer. */
const guesses = 20;

/** Paths that need no token; none of them shows rows. */
const publicPaths = new Set(["/healthz", "/readyz", "/openapi.json", "/login", "/logout", "/page/:file"]);

/** Without @fastify/helmet: its hooks take a third more CPU for each POST to set the same headers. */
const safeHeaders = {
  "content-security-policy": "default-src 'none'; frame-ancestors 'none'",
  "x-content-type-options": "nosniff",
  "x-frame-options": "DENY",
  "referrer-policy": "no-referrer",
  "cross-origin-opener-policy": "same-origin",
  "cross-origin-resource-policy": "same-origin",
  "cache-control": "no-store",
};

export interface Guard {
  /** Reads the body. @throws `Refusal` if it is too long or too slow, or if too many are open */
  receive(request: FastifyRequest): Promise<Buffer>;
  /** Counts the request as open until this settles, even if its client disconnects. */
  hold(request: FastifyRequest, until: Promise<unknown>): void;
  /** Sets a session cookie for the right token. @throws `Refusal` if the token is wrong */
  logIn(token: unknown, reply: FastifyReply): Promise<void>;
  /** Ends the session of the request's cookie. */
  logOut(request: FastifyRequest, reply: FastifyReply): void;
  /** Whether the request may still be answered; its session may have ended since it began. */
  isLoggedIn(request: FastifyRequest): boolean;
}

/** Adds the checks: the server's own names and pages only, the token, the number of open requests. */
export function protect(app: FastifyInstance, { host, token }: { host: string; token?: string }): Guard {
  const ownNames = new Set(["localhost", host.toLowerCase(), hostname().toLowerCase()]);
  /** When each session ends, by the digest of its cookie: a lookup takes the same time for every guess. */
  const sessions = new Map<string, number>();

  const isLoggedIn = ({ headers }: FastifyRequest): boolean => {
    if (token === undefined) return true;
    const bearer = /^Bearer +(\S+)$/i.exec(headers.authorization ?? "")?.[1];
    if (bearer !== undefined) return same(bearer, token);
    return (sessions.get(sessionKey(headers)) ?? 0) > Date.now();
  };
  let guessing = 0;
  const checkToken = async (right: boolean): Promise<void> => {
    if (right) return;
    if (guessing >= guesses) throw new Refusal(429, "Too many wrong tokens; try again later", retryAfter(5));
    guessing++;
    await sleep(300); // makes guessing slow
    guessing--;
    throw new Refusal(401, "A token is needed: as Authorization: Bearer …, or log in at /login", {
      headers: { "www-authenticate": "Bearer" },
    });
  };

  const connections = boundConnections(app);
  const readBody = openBodies();
  const held = new WeakMap<FastifyRequest, Promise<unknown>>();
  /** The answers to the requests that were let in. */
  const answers = new WeakMap<FastifyRequest, FastifyReply["raw"]>();

  app.addHook("onRequest", async (request, reply) => {
    const { method, headers, routeOptions } = request;
    reply.headers(safeHeaders);
    const name = /^(\[[^\]]*\]|[^:]*)(:\d+)?$/.exec(headers.host ?? "")?.[1]?.toLowerCase() ?? "";
    // Otherwise a foreign host name that was made to resolve to this address would count as ours (DNS rebinding).
    if (!ownNames.has(name) && isIP(name.replace(/^\[|\]$/g, "")) === 0) {
      throw new Refusal(403, `"${name.slice(0, 100)}" is not a name of this server: use its address`);
    }
    if (headers.origin !== undefined && headers.origin.replace(/^https?:\/\//, "") !== headers.host) {
      throw new Refusal(403, `Pages of "${headers.origin.slice(0, 100)}" must not use this server`);
    }
    if (publicPaths.has(routeOptions.url ?? "")) return undefined;
    if (!isLoggedIn(request)) {
      if (method === "GET" && routeOptions.url === "/") return reply.redirect("/login", 303);
      await checkToken(false);
    }
    connections.letIn(request.raw.socket);
    answers.set(request, reply.raw);
    if (method === "GET") connections.work(request.raw.socket, reply.raw);
    return undefined;
  });

  return {
    async receive(request) {
      const answer = answers.get(request);
      if (!answer) return await readBody(request, { limit: bounds.strangerBodyBytes, waitMs: bounds.strangerBodyMs });
      const until = new Promise((resolve) => answer.once("close", resolve)).then(() => held.get(request));
      const body = await readBody(request, { limit: bounds.bodyBytes, until });
      connections.work(request.raw.socket, answer);
      return body;
    },
    hold: (request, until) => void held.set(request, until),
    async logIn(given, reply) {
      await checkToken(token !== undefined && typeof given === "string" && same(given, token));
      const session = randomBytes(32).toString("base64url");
      sessions.set(digest(session).toString("base64"), Date.now() + sessionHours * 3_600_000);
      const [oldest = ""] = sessions.keys();
      if (sessions.size > mostSessions) sessions.delete(oldest);
      reply.header("set-cookie", `${cookieName}=${session}; Max-Age=${sessionHours * 3600}; ${cookieRules}`);
    },
    logOut({ headers }, reply) {
      sessions.delete(sessionKey(headers));
      reply.header("set-cookie", `${cookieName}=; Max-Age=0; ${cookieRules}`);
    },
    isLoggedIn,
  };
}

const digest = (text: string): Buffer => createHash("sha256").update(text).digest();

const same = (a: string, b: string): boolean => timingSafeEqual(digest(a), digest(b));

function sessionKey({ cookie = "" }: FastifyRequest["headers"]): string {
  const cookies = cookie.split(/; */).map((pair) => pair.split("="));
  return digest(cookies.find(([name]) => name === cookieName)?.[1] ?? "").toString("base64");
}
