/**
 * Error responses, in the format of the API that was called.
 *
 * @module
 */
import type { FastifyError, FastifyReply, FastifyRequest } from "fastify";

/** A request that is refused. */
export class Refusal extends Error {
  statusCode: number;
  /** `proxyCode`: what the Kafka REST proxy calls it, where that is not the status itself. */
  more: { headers?: Record<string, string>; proxyCode?: number };

  constructor(statusCode: number, message: string, more: Refusal["more"] = {}) {
    super(message);
    this.statusCode = statusCode;
    this.more = more;
  }
}

/** For answers that another try may better, after so many seconds. */
export const retryAfter = (seconds: number) => ({ headers: { "retry-after": String(seconds) } });

/** What the Kafka REST proxy answers with. */
export const proxyType = "application/vnd.kafka.v2+json";

/** Answers `{"error"}`, below /topics the proxy's `{"error_code", "message"}`. */
export function answerError(error: FastifyError & Partial<Refusal>, request: FastifyRequest, reply: FastifyReply) {
  const status = error.statusCode ?? 500;
  // What nobody foresaw may name paths or rows.
  const message = status === 500 ? "The server failed" : error.message;
  // What was refused unread would be taken for the next request.
  if (request.method === "POST" && status !== 404) reply.header("connection", "close");
  reply.code(status).headers(error.more?.headers ?? {});
  if (!/^\/topics(\/|\?|$)/.test(request.url)) return reply.send({ error: message });
  return reply.type(proxyType).send({ error_code: error.more?.proxyCode ?? status, message });
}
