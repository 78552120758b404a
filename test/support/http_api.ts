/**
 * A client of `serve` that checks responses against the API description.
 *
 * @module
 */

import assert from "node:assert/strict";
import { setTimeout as sleep } from "node:timers/promises";
import { Ajv2020, type ValidateFunction } from "ajv/dist/2020.js";
import { type Running, start } from "./support.ts";

/** Starts `serve` on a free port and waits until it is ready. */
export async function startServer(
  args: string[],
  env: NodeJS.ProcessEnv = {},
): Promise<{ server: Running; url: string }> {
  const server = start(["serve", "--port", "0", ...args], { env });
  await server.said(/Listening on \S+\n/);
  const url = /Listening on (\S+)/.exec(server.output())?.[1] as string;
  for (let tries = 0; tries < 200 && !(await fetch(`${url}/readyz`)).ok; tries++) await sleep(100);
  return { server, url };
}

type Schema = Record<string, unknown>;
/** The description of each route in `/openapi.json`. */
export interface OpenApi {
  paths: Record<
    string,
    Record<string, { responses: Record<string, { content?: Record<string, { schema: Schema }> }> }>
  >;
  components: { schemas: Record<string, Schema> };
}

const ajv = new Ajv2020({ strict: false });

/** Headers for the program's endpoint, and for that of the Kafka REST proxy. */
export const json = { "content-type": "application/json" };
export const proxy = { "content-type": "application/vnd.kafka.json.v2+json" };

/** A client of the server at `url`, or of another with `at`, that checks every response against the description. */
export async function openClient(url: string) {
  const description = (await (await fetch(`${url}/openapi.json`)).json()) as OpenApi;
  const judges = new Map<string, ValidateFunction>();

  /** Sends a request, and checks that path, status, type and body match `/openapi.json`. */
  async function ask(path: string, init: RequestInit & { at?: string } = {}) {
    const { at = url, ...rest } = init;
    const response = await fetch(`${at}${path}`, { redirect: "manual", ...rest });
    const text = await response.text();
    const type = response.headers.get("content-type")?.split(";")[0] ?? "";
    const body = /json$/.test(type) ? (JSON.parse(text) as Record<string, unknown>) : { text };
    const method = (init.method ?? "GET").toLowerCase();
    const [template] = Object.keys(description.paths)
      .filter((known) =>
        new RegExp(`^${known.replace(/\{\w+\}/g, "[^/]+").replace(/\./g, "\\.")}$`).test(path.split("?")[0] as string),
      )
      .sort((a, b) => b.length - a.length);
    const answers = template ? description.paths[template]?.[method]?.responses : undefined;
    if (answers) {
      const where = `${method} ${template} ${response.status}`;
      const answer = answers[response.status];
      assert.ok(answer, `${where} is not described: ${text}`);
      if (answer.content) {
        const schema = answer.content[type]?.schema;
        assert.ok(schema, `${where} is not described as ${type}`);
        const kind = `${where} ${type}`;
        const valid = judges.get(kind) ?? ajv.compile({ components: description.components, ...schema });
        judges.set(kind, valid);
        if (/json$/.test(type)) assert.ok(valid(body), `${where}: ${JSON.stringify(valid.errors)} ${text}`);
      }
    }
    return { status: response.status, headers: response.headers, body, text };
  }

  const sendData = (body: unknown, at = url) =>
    ask("/send-data", {
      method: "POST",
      headers: json,
      body: typeof body === "string" ? body : JSON.stringify(body),
      at,
    });
  const produce = (topic: string, body: unknown, at = url) =>
    ask(`/topics/${topic}`, {
      method: "POST",
      headers: proxy,
      body: typeof body === "string" ? body : JSON.stringify(body),
      at,
    });

  return { description, ask, sendData, produce };
}
