/**
 * `/openapi.json`: OpenAPI 3.1 from the schemas of the routes, and the parts that these schemas share.
 *
 * The schemas only describe answers and bodies. Fastify validates parameters by them, nothing else.
 *
 * @module
 */
import { fastifySwagger } from "@fastify/swagger";
import type { FastifyInstance, FastifySchema } from "fastify";
import { tableNames } from "../io.ts";
import packageJson from "../package.json" with { type: "json" };
import { proxyType } from "./errors.ts";

type Json = Record<string, unknown>;

/** A reference to the schema that was added under this name. */
export const ref = (name: string): Json => ({ $ref: `${name}#` });
export const object = (properties: Record<string, Json>, required = Object.keys(properties)): Json => ({
  ...{ type: "object", properties, required, additionalProperties: false },
});
/** Several properties with one schema. */
export const each = (schema: Json, ...names: string[]): Record<string, Json> =>
  Object.fromEntries(names.map((name) => [name, schema]));
export const list = (items: Json): Json => ({ type: "array", items });
export const text: Json = { type: "string" };
export const whole: Json = { type: "integer", minimum: 0 };
export const maybe = (type: string): Json => ({ type: [type, "null"] });

/** A body or an answer of one content type. */
export const json = (schema: Json, type = "application/json") => ({ content: { [type]: { schema } } });
export const ok = (description: string, schema: Json, type?: string) => ({
  "200": { description, ...json(schema, type) },
});
/** An answer without a body. */
export const empty = (description: string) => ({ description, type: "null" });
export const error = (description: string, more: Json = {}) => ({ description, ...more, ...json(ref("Error")) });
export const proxyError = (description: string, more: Json = {}) => ({
  ...{ description, ...more, ...json(ref("ProxyError"), proxyType) },
});
/** The header of errors that say when to retry. */
export const retry: Json = { headers: { "Retry-After": { description: "seconds", ...whole } } };

/** The answers of the token check. */
export const tokenErrors = (answer = error) => ({
  "401": answer("A token is needed"),
  "429": answer("Too many wrong tokens", retry),
});

/** Adds the refusals of the guard, which are possible on any path. */
function addRefusals(schema: FastifySchema, url: string): FastifySchema {
  const answer = url.startsWith("/topics") ? proxyError : error;
  const response = {
    ...(schema.response as Json),
    ...(schema.security ? {} : tokenErrors(answer)),
    "403": answer("The Host or Origin is foreign"),
  };
  return { ...schema, response };
}

/** Adds `/openapi.json` for topics with this prefix. It describes the routes that are added afterwards. */
export async function addOpenApi(app: FastifyInstance, prefix: string): Promise<void> {
  const topics = tableNames.map((name) => `${prefix}.${name}`).join(", ");
  app.setSerializerCompiler(() => JSON.stringify);
  await app.register(fastifySwagger, {
    openapi: {
      openapi: "3.1.0",
      info: {
        title: packageJson.name,
        version: packageJson.version,
        description: `Accepts rows for the topics ${topics}. An answer 200 means that the broker has stored them.`,
      },
      security: [{ token: [] }, { session: [] }, {}],
      components: {
        securitySchemes: {
          token: { type: "http", scheme: "bearer", description: "If the server was started with a token" },
          session: { type: "apiKey", in: "cookie", name: "pipeline_session" },
        },
      },
    },
    convertConstToEnum: false,
    refResolver: { buildLocalReference: (schema) => String(schema.$id) },
    transform: ({ schema, url }) => ({ schema: addRefusals(schema, url), url }),
  });
  app.addSchema({ $id: "Error", ...object({ error: text }) });
  app.addSchema({ $id: "ProxyError", ...object({ error_code: whole, message: text }) });
  const schema = { summary: "This description", security: [], response: ok("OpenAPI", { type: "object" }) };
  app.get("/openapi.json", { schema }, async (_request, reply) =>
    reply.type("application/json").send(JSON.stringify(app.swagger(), null, 2)),
  );
}
