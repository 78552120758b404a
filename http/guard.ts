/**
 * Who may come in, and how many: every request is looked at before its body is read.
 *
 * @module
 */
import { createHash, createHmac, randomBytes, timingSafeEqual } from "node:crypto";
import { isIP } from "node:net";
import { hostname } from "node:os";
import { setTimeout as sleep } from "node:timers/promises";
import type { FastifyInstance, FastifyReply, FastifyRequest } from "fastify";
import { Refusal } from "./errors.ts";

/** What may be open at once; all bodies together decide how much memory there must be. */
export const bounds = { bodyBytes: 4_000_000, openRequests: 1_000, openBytes: 32_000_000, connections: 2_000 };

const sessionHours = 12;
const cookieName = "pipeline_session";
const cookieRules = "Path=/; HttpOnly; SameSite=Strict";
/** Wrong tokens that wait for their answer. */
const guesses = 20;

/** What needs no token: nothing of it shows rows. */
const publicPaths = new Set(["/healthz", "/readyz", "/openapi.json", "/login", "/logout", "/page/:file"]);

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
  /** Counts the request as open until this has settled, also when its client is gone. */
  hold(request: FastifyRequest, until: Promise<unknown>): void;
  /** The answer carries a cookie that stands for the token. @throws `Refusal` where the token is wrong */
  logIn(token: unknown, reply: FastifyReply): Promise<void>;
  logOut(reply: FastifyReply): void;
}

/** Sets the checks up: own names and pages only, the token, the number of open requests. */
export function protect(app: FastifyInstance, { host, token }: { host: string; token?: string }): Guard {
  const ownNames = new Set(["localhost", host.toLowerCase(), hostname().toLowerCase()]);
  const secret = randomBytes(32);
  const sign = (expires: string) => createHmac("sha256", secret).update(expires).digest("base64url");

  const isLoggedIn = ({ headers }: FastifyRequest): boolean => {
    if (token === undefined) return true;
    const bearer = /^Bearer +(\S+)$/i.exec(headers.authorization ?? "")?.[1];
    if (bearer !== undefined) return same(bearer, token);
    const cookies = (headers.cookie ?? "").split(/; */).map((pair) => pair.split("="));
    const session = cookies.find(([name]) => name === cookieName)?.[1] ?? "";
    const [expires = "", signature = ""] = session.split(".");
    return Number(expires) > Date.now() && same(signature, sign(expires));
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

  let openRequests = 0;
  let openBytes = 0;
  const held = new WeakMap<FastifyRequest, Promise<unknown>>();
  const countOpen = (request: FastifyRequest, reply: FastifyReply) => {
    const bytes = Math.min(Number(request.headers["content-length"] ?? bounds.bodyBytes), bounds.bodyBytes);
    if (openRequests >= bounds.openRequests || openBytes + bytes > bounds.openBytes) {
      throw new Refusal(503, "Too many requests are open: nothing was stored; try again", retryAfter(1));
    }
    openRequests++;
    openBytes += bytes;
    reply.raw.once("close", () => {
      void Promise.resolve(held.get(request)).finally(() => {
        openRequests--;
        openBytes -= bytes;
      });
    });
  };

  app.server.maxConnections = bounds.connections;
  app.addHook("onRequest", async (request, reply) => {
    const { method, headers, routeOptions } = request;
    reply.headers(safeHeaders);
    const name = /^(\[[^\]]*\]|[^:]*)(:\d+)?$/.exec(headers.host ?? "")?.[1]?.toLowerCase() ?? "";
    // A page of a foreign name that was made to point here would otherwise count as ours.
    if (!ownNames.has(name) && isIP(name.replace(/^\[|\]$/g, "")) === 0) {
      throw new Refusal(403, `"${name.slice(0, 100)}" is no name of this server: use its address`);
    }
    if (headers.origin !== undefined && headers.origin.replace(/^https?:\/\//, "") !== headers.host) {
      throw new Refusal(403, `Pages of "${headers.origin.slice(0, 100)}" may not use this server`);
    }
    if (!publicPaths.has(routeOptions.url ?? "") && !isLoggedIn(request)) {
      if (method === "GET" && routeOptions.url === "/") return reply.redirect("/login", 303);
      await checkToken(false);
    }
    if (method === "POST") countOpen(request, reply);
    return undefined;
  });

  return {
    hold: (request, until) => void held.set(request, until),
    async logIn(given, reply) {
      await checkToken(token !== undefined && typeof given === "string" && same(given, token));
      const expires = String(Date.now() + sessionHours * 3_600_000);
      const session = `${expires}.${sign(expires)}`;
      reply.header("set-cookie", `${cookieName}=${session}; Max-Age=${sessionHours * 3600}; ${cookieRules}`);
    },
    logOut: (reply) => void reply.header("set-cookie", `${cookieName}=; Max-Age=0; ${cookieRules}`),
  };
}

/** For answers that another try may better, after so many seconds. */
export const retryAfter = (seconds: number) => ({ headers: { "retry-after": String(seconds) } });

function same(a: string, b: string): boolean {
  const digest = (text: string) => createHash("sha256").update(text).digest();
  return timingSafeEqual(digest(a), digest(b));
}
