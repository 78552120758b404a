/**
 * Error responses, in the format of the API that was called.
 *
 * @module
 */
import type { FastifyError, FastifyReply, FastifyRequest } from "fastify";

/** An error response with its status. */
export class Refusal extends Error {
  statusCode: number;
  /** `proxyCode`: the error code of the Kafka REST proxy, where it differs from the status. */
  more: { headers?: Record<string, string>; proxyCode?: number };

  constructor(statusCode: number, message: string, more: Refusal["more"] = {}) {
    super(message);
    this.statusCode = statusCode;
    this.more = more;
  }
}

/** The header that asks the client to retry after so many seconds. */
export const retryAfter = (seconds: number) => ({ headers: { "retry-after": String(seconds) } });

/** The content type of the Kafka REST proxy's answers. */
export const proxyType = "application/vnd.kafka.v2+json";

/** Answers `{"error"}`; below /topics the REST proxy's `{"error_code", "message"}`. */
export function answerError(error: FastifyError & Partial<Refusal>, request: FastifyRequest, reply: FastifyReply) {
  const status = error.statusCode ?? 500;
  // The message of an unexpected error may show paths or rows.
  const message = status === 500 ? "The server failed" : error.message;
  // The unread rest of a refused body would be taken for the next request.
  if (request.method === "POST" && status !== 404) reply.header("connection", "close");
  reply.code(status).headers(error.more?.headers ?? {});
  if (!/^\/topics(\/|\?|$)/.test(request.url)) return reply.send({ error: message });
  return reply.type(proxyType).send({ error_code: error.more?.proxyCode ?? status, message });
}
