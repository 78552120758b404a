/**
 * What the API is, as OpenAPI 3.1. Tests compare it with the routes and with real answers.
 *
 * @module
 */
import { byTable, tableNames, tables } from "../io.ts";
import packageJson from "../package.json" with { type: "json" };

type Json = Record<string, unknown>;

const ref = (name: string): Json => ({ $ref: `#/components/schemas/${name}` });
const object = (properties: Record<string, Json>, required = Object.keys(properties)): Json => ({
  ...{ type: "object", properties, required, additionalProperties: false },
});
const list = (items: Json): Json => ({ type: "array", items });
const whole: Json = { type: "integer", minimum: 0 };
const maybe = (type: string): Json => ({ type: [type, "null"] });
const json = (schema: Json, type = "application/json"): Json => ({ content: { [type]: { schema } } });

const proxyType = "application/vnd.kafka.v2+json";
const retry: Json = { headers: { "Retry-After": { description: "seconds", schema: whole } } };
const proxyError = (description: string, more: Json = {}): Json => ({
  ...{ description, ...more, ...json(ref("ProxyError"), proxyType) },
});
const error = (description: string, more: Json = {}): Json => ({ description, ...more, ...json(ref("Error")) });

/** Refusals that any path may answer with. */
const everywhere = {
  "401": error("A token is needed"),
  "403": error("A foreign Host or Origin"),
  "429": error("Too many wrong tokens", retry),
};
const proxyEverywhere = {
  "401": proxyError("A token is needed"),
  "403": proxyError("A foreign Host or Origin"),
  "429": proxyError("Too many wrong tokens", retry),
};
const ok = (description: string, schema: Json, type?: string): Json => ({
  "200": { description, ...json(schema, type) },
});

/** The document, for topics with this prefix. */
export function openApi(prefix: string): Json {
  const columns = tableNames.map((table) => `${table}: ${Object.keys(tables[table].columns).join(", ")}`).join("; ");
  const table = { name: "table", schema: { enum: tableNames } };
  return {
    openapi: "3.1.0",
    info: {
      title: packageJson.name,
      version: packageJson.version,
      description: `Takes rows for the topics ${tableNames.map((name) => `${prefix}.${name}`).join(", ")}. An answer 200 means that the broker has stored them.`,
    },
    security: [{ token: [] }, { session: [] }, {}],
    paths: {
      "/send-data": {
        post: {
          summary: "Stores one row or a list of rows, all or none",
          requestBody: { required: true, ...json(ref("SendData")) },
          responses: {
            ...ok("Stored; offsets in the order of the rows", ref("Stored")),
            "400": error("Not JSON, or not of this form"),
            "404": error("Unknown topic"),
            "413": error("Body over 4 MB, over 10,000 rows, or a row that is too large for the topic"),
            "415": error("Content-Type is not application/json"),
            "503": error(
              "Nothing was stored: Kafka is away, or too many requests are open. Or, where the message says so, it is not known whether the rows were stored",
              retry,
            ),
            ...everywhere,
          },
        },
      },
      "/topics": {
        get: {
          summary: "The topics, as the Kafka REST proxy v2 has it",
          responses: { ...ok("Names", list({ type: "string" }), proxyType), ...proxyEverywhere },
        },
      },
      "/topics/{topic}": {
        post: {
          summary: "Stores records, all or none, as the Kafka REST proxy v2 has it",
          parameters: [{ name: "topic", in: "path", required: true, schema: { type: "string" } }],
          requestBody: { required: true, ...json(ref("Records"), "application/vnd.kafka.json.v2+json") },
          responses: {
            ...ok("Stored; offsets in the order of the records", ref("ProxyStored"), proxyType),
            "400": proxyError("Not JSON"),
            "404": proxyError("40401 unknown topic, 40402 unknown partition"),
            "413": proxyError("Body over 4 MB, over 10,000 records, or a record that is too large for the topic"),
            "415": proxyError("Content-Type is not application/vnd.kafka.json.v2+json"),
            "422": proxyError("Not of this form"),
            "503": proxyError("50003 as 503 of /send-data", retry),
            ...proxyEverywhere,
          },
        },
      },
      "/status": {
        get: {
          summary: "How far each table is, and the latest posts",
          responses: { ...ok("A snapshot", ref("Snapshot")), ...everywhere },
        },
      },
      "/events": {
        get: {
          summary: "The same again and again, as server-sent events; data is a Snapshot",
          responses: {
            "200": {
              description: "Events whose data is a status, as /status gives it",
              content: { "text/event-stream": {} },
            },
            "503": error("Too many pages are open", retry),
            ...everywhere,
          },
        },
      },
      "/rejects": {
        get: {
          summary: "The newest messages that could not be read, 100 at most",
          parameters: [
            { ...table, in: "query" },
            { name: "reason", in: "query", schema: { type: "string", pattern: "^[a-z_]{1,40}$" } },
          ],
          responses: {
            ...ok("Rejects", object({ rejects: list(ref("Reject")) })),
            "400": error("Unknown table or reason"),
            "503": error("Too many look at once", retry),
            ...everywhere,
          },
        },
      },
      "/rejects/{table}/{partition}/{offset}": {
        get: {
          summary: "One of them with the message as it came",
          parameters: [
            { ...table, in: "path", required: true },
            { name: "partition", in: "path", required: true, schema: whole },
            { name: "offset", in: "path", required: true, schema: whole },
          ],
          responses: {
            ...ok("The reject", ref("RejectWithMessage")),
            "404": error("No such reject"),
            "503": error("Too many look at once", retry),
            ...everywhere,
          },
        },
      },
      "/report": {
        get: {
          summary: "The report page",
          responses: {
            ...ok("HTML", { type: "string" }, "text/html"),
            "404": {
              description: "No report yet; a page says so where HTML is accepted",
              content: { "application/json": { schema: ref("Error") }, "text/html": { schema: { type: "string" } } },
            },
            ...everywhere,
          },
        },
      },
      "/metrics": {
        get: {
          summary: "Prometheus' text format",
          responses: { ...ok("Metrics", { type: "string" }, "text/plain"), ...everywhere },
        },
      },
      "/healthz": {
        get: {
          summary: "Alive",
          security: [],
          responses: { ...ok("Alive", object({ status: { const: "alive" } })), "403": everywhere["403"] },
        },
      },
      "/readyz": {
        get: {
          summary: "Kafka and the topics are there",
          security: [],
          responses: {
            ...ok("Ready", object({ status: { const: "ready" } })),
            "503": error("Kafka is away, or the server stops", retry),
            "403": everywhere["403"],
          },
        },
      },
      "/openapi.json": {
        get: {
          summary: "This description",
          security: [],
          responses: { ...ok("OpenAPI", { type: "object" }), "403": everywhere["403"] },
        },
      },
      "/": {
        get: {
          summary: "The live page",
          responses: {
            ...ok("HTML", { type: "string" }, "text/html"),
            "303": { description: "To /login, where a token is needed" },
          },
        },
      },
      "/page/{file}": {
        get: {
          summary: "The page's files",
          security: [],
          parameters: [{ name: "file", in: "path", required: true, schema: { type: "string" } }],
          responses: { "200": { description: "The file" }, "404": error("No such file") },
        },
      },
      "/login": {
        get: {
          summary: "The login page",
          security: [],
          responses: {
            ...ok("HTML", { type: "string" }, "text/html"),
            "303": { description: "To /, where no token is needed" },
          },
        },
        post: {
          summary: "Gives a cookie for the token",
          security: [],
          requestBody: { required: true, ...json(object({ token: { type: "string" } })) },
          responses: {
            "204": { description: "Logged in" },
            "400": error("Not JSON"),
            "408": error("The body did not arrive in time"),
            "413": error("Body over 4 kB"),
            "415": error("Not JSON"),
            ...everywhere,
          },
        },
      },
      "/logout": {
        post: {
          summary: "Ends the session of the cookie",
          security: [],
          responses: {
            "204": { description: "Logged out" },
            "408": error("The body did not arrive in time"),
            "413": error("Body over 4 kB"),
            ...everywhere,
          },
        },
      },
    },
    components: {
      securitySchemes: {
        token: { type: "http", scheme: "bearer", description: "Where the server was started with a token" },
        session: { type: "apiKey", in: "cookie", name: "pipeline_session" },
      },
      schemas: {
        Row: { type: "object", description: `Columns and values. ${columns}` },
        SendData: {
          ...object({
            topic_name: { type: "string", description: `${tableNames.join(", ")}, or the topic's whole name` },
            data: { oneOf: [ref("Row"), { ...list(ref("Row")), minItems: 1, maxItems: 10_000 }] },
          }),
          additionalProperties: true,
        },
        Place: object({ partition: whole, offset: whole }),
        Stored: object({ topic: { type: "string" }, stored: whole, offsets: list(ref("Place")) }),
        Records: {
          ...object({
            records: {
              ...list({
                ...object(
                  {
                    key: { description: "Without one the row's own key counts" },
                    value: { description: "The row; null is a tombstone" },
                    partition: { type: ["integer", "null"] },
                  },
                  ["value"],
                ),
                additionalProperties: true,
              }),
              ...{ minItems: 1, maxItems: 10_000 },
            },
          }),
          additionalProperties: true,
        },
        ProxyStored: object({
          offsets: list(
            object({ partition: whole, offset: whole, error_code: { type: "null" }, error: { type: "null" } }),
          ),
          key_schema_id: { type: "null" },
          value_schema_id: { type: "null" },
        }),
        Error: object({ error: { type: "string" } }),
        ProxyError: object({ error_code: whole, message: { type: "string" } }),
        TableStatus: object({
          table: { enum: tableNames },
          in_mysql: maybe("integer"),
          posted: maybe("integer"),
          last_key: maybe("string"),
          label: { type: "string", description: "What people read for the table's name" },
          topic: { type: "string" },
          in_topic: maybe("integer"),
          lag: maybe("integer"),
          landed: { type: "object", additionalProperties: whole },
          cleaned: { type: "object", additionalProperties: whole },
          adds_up: { type: "boolean", description: "messages = clean + superseded + rejected, of what is cleaned" },
          messages: whole,
          clean: whole,
          superseded: whole,
          rejected: whole,
          reasons: { type: "object", additionalProperties: whole },
        }),
        LatestPost: object({
          key: { type: "string" },
          tables: { ...list({ enum: tableNames }), description: "Whose message of it was found" },
          at: { type: "integer" },
          title: maybe("string"),
          category: maybe("string"),
          poster: maybe("string"),
          country: maybe("string"),
          user: maybe("string"),
        }),
        Snapshot: object({
          at: whole,
          tables: {
            oneOf: [{ type: "null" }, object(byTable(() => ref("TableStatus")))],
          },
          posts: list(ref("LatestPost")),
          trouble: list({ type: "string" }),
        }),
        Reject: object(reject),
        RejectWithMessage: object({
          ...reject,
          key: maybe("string"),
          raw: maybe("string"),
          bytes: whole,
          utf8: { type: "boolean" },
        }),
      },
    },
  };
}

const reject: Record<string, Json> = {
  table: { enum: tableNames },
  partition: whole,
  offset: { type: "string", pattern: "^[0-9]+$" },
  posted_at: { type: ["string", "null"] },
  reason: { type: "string" },
  detail: maybe("string"),
};
