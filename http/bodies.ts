/**
 * Reads request bodies within bounds of memory. A body counts by the bytes received, not by the Content-Length that its
 * client claims.
 *
 * @module
 */
import type { FastifyRequest } from "fastify";
import { bounds } from "./bounds.ts";
import { Refusal, retryAfter } from "./errors.ts";

/** When memory runs out, a body that received nothing for so long is refused to make room, ms. */
const stalledMs = 1_000;

/** Settings of reading one body. */
interface BodyOptions {
  /** Most bytes; a longer body is refused. */
  limit: number;
  /** Most ms; a slower body is refused. Default: the server's timeout of a request. */
  waitMs?: number;
  /** The body counts as open until this settles. Default: it does not count. */
  until?: Promise<unknown>;
}

interface Body {
  held: number;
  heardAt: number;
  refuse: (reason: Error) => void;
}

/** Returns a function that reads the body of a request; it throws `Refusal` if it is too long or too slow, or if too many are open. */
export function openBodies(): (request: FastifyRequest, options: BodyOptions) => Promise<Buffer> {
  const receiving = new Set<Body>();
  let openRequests = 0;
  let openBytes = 0;

  const hold = (body: Body, bytes: number) => {
    openBytes += bytes - body.held;
    body.held = bytes;
  };
  /** Whether `body` fits into memory; refuses stalled bodies if necessary. */
  const hasRoom = (body: Body): boolean => {
    for (const other of receiving) {
      if (openBytes <= bounds.openBytes) break;
      if (other !== body && performance.now() - other.heardAt > stalledMs) other.refuse(tooMany());
    }
    return openBytes <= bounds.openBytes;
  };

  return ({ raw, headers }, { limit, waitMs, until }) =>
    new Promise((resolve, reject) => {
      const length = Number(headers["content-length"] ?? Number.NaN);
      if (length > limit) return reject(tooLarge(limit));
      let bytes = 0;
      let buffer = Buffer.alloc(0);
      const settle = () => {
        clearTimeout(timer);
        receiving.delete(body);
        raw.off("data", onData).off("end", onEnd).off("error", refuse);
      };
      const refuse = (reason: Error) => {
        settle();
        hold(body, 0);
        reject(reason);
      };
      const onData = (chunk: Buffer) => {
        if (bytes + chunk.length > limit) return refuse(tooLarge(limit));
        if (bytes + chunk.length > buffer.length) {
          // A list of chunks of one byte each would take a hundred times their bytes.
          const size = Math.max(bytes + chunk.length, Math.min(2 * buffer.length, length || limit));
          const grown = Buffer.allocUnsafeSlow(size);
          buffer.copy(grown, 0, 0, bytes);
          buffer = grown;
        }
        chunk.copy(buffer, bytes);
        bytes += chunk.length;
        if (!until) return;
        body.heardAt = performance.now();
        hold(body, buffer.length);
        // The body that received nothing for longest comes first.
        receiving.delete(body);
        receiving.add(body);
        if (!hasRoom(body)) refuse(tooMany());
      };
      const onEnd = () => {
        if (until && openRequests >= bounds.openRequests) return refuse(tooMany());
        settle();
        if (until) openRequests++;
        void until?.finally(() => {
          openRequests--;
          hold(body, 0);
        });
        resolve(buffer.subarray(0, bytes));
      };
      const body: Body = { held: 0, heardAt: performance.now(), refuse };
      const late = () => refuse(new Refusal(408, `The body did not arrive within ${waitMs} ms`));
      const timer = waitMs === undefined ? undefined : setTimeout(late, waitMs);
      raw.on("data", onData).on("end", onEnd).on("error", refuse);
    });
}

const tooLarge = (limit: number) =>
  new Refusal(413, `The body is larger than ${limit} bytes, the limit of one request; send less at a time`);

const tooMany = () => new Refusal(503, "Too many requests are open: nothing was stored; try again", retryAfter(1));
