/**
 * The routes that accept rows: /send-data of the original course, and /topics of the Kafka REST proxy v2.
 *
 * They check only the form of a request; cleaning judges the values of a row.
 *
 * @module
 */

import { isUtf8 } from "node:buffer";
import type { FastifyInstance, FastifyReply, FastifyRequest } from "fastify";
import { type Table, tableNames, tables } from "../io.ts";
import { messageBytes, type ProducerRecord, type RecordMetadata, type SendResult } from "../kafka/publisher.ts";
import { type KafkaSettings, topicOf } from "../kafka/settings.ts";
import { proxyType, Refusal, retryAfter } from "./errors.ts";
import type { Guard } from "./guard.ts";
import { error, json, list, maybe, object, ok, proxyError, ref, retry, text, whole } from "./openapi.ts";
import { isObject, rawArray, rawObject } from "./raw_json.ts";
import type { Topics } from "./topics.ts";

/** What the routes need. */
interface IntakeOptions {
  kafka: KafkaSettings;
  /** Whether `<anything>.pin` means this prefix's topic of pins, and so on. */
  anyPrefix: boolean;
  topics: Topics;
  guard: Guard;
  store: (messages: ProducerRecord[]) => Promise<SendResult>;
  onRows: (table: Table, rows: number, outcome: SendResult["outcome"]) => void;
}

const mostRecords = 10_000;
export const jsonType = "application/json";
const recordsType = "application/vnd.kafka.json.v2+json";

type Row = Omit<ProducerRecord, "topic">;

/** Adds `POST /send-data`, `GET /topics` and `POST /topics/<topic>`. */
export function addIntake(app: FastifyInstance, options: IntakeOptions): void {
  const { kafka, guard } = options;
  app.removeAllContentTypeParsers();
  app.addContentTypeParser([jsonType, recordsType], (request: FastifyRequest) => guard.receive(request));

  addSchemas(app);

  const sendData = {
    summary: "Stores one row or a list of rows, all or none",
    body: json(ref("SendData")),
    response: {
      ...ok("Stored; offsets in the order of the rows", ref("Stored")),
      "400": error("Not JSON, or not of this form"),
      "404": error("Unknown topic"),
      "413": error("Body over 4 MB, over 10,000 rows, or a row that is too large for the topic"),
      "415": error("Content-Type is not application/json"),
      "503": error(
        "Nothing was stored: Kafka is unavailable, or too many requests are open. If the message says so, it is unknown whether the rows were stored",
        retry,
      ),
    },
  };
  app.post("/send-data", { ...rawBody(jsonType), schema: sendData }, async (request) => {
    const body = rawObject(readBody(request));
    const name = parsed(body.get("topic_name"));
    const data = body.get("data");
    if (typeof name !== "string") throw new Refusal(400, `"topic_name" must be text, such as "pin"`);
    const table = tableOf(name, options);
    if (data === undefined) throw new Refusal(400, `"data" is missing: a row, or a list of rows`);
    const rows = rawArray(data) ?? [data];
    checkCount(rows.length, `"data"`, 400);
    const wrong = rows.findIndex((row) => !isObject(row));
    if (wrong >= 0) throw new Refusal(400, `Row ${wrong} of "data" must be an object of columns and values`);
    const messages = rows.map((value) => ({ key: keyOf(table, value), value }));
    const offsets = await put(request, table, messages, options);
    return { topic: topicOf(kafka, table), stored: offsets.length, offsets };
  });

  const names = {
    summary: "The topics, in the format of the Kafka REST proxy v2",
    response: ok("Names", list(text), proxyType),
  };
  app.get("/topics", { schema: names }, async (_request, reply) =>
    reply.type(proxyType).send(JSON.stringify(tableNames.map((table) => topicOf(kafka, table)))),
  );

  const produce = {
    summary: "Stores records, all or none, in the format of the Kafka REST proxy v2",
    body: json(ref("Records"), recordsType),
    response: {
      ...ok("Stored; offsets in the order of the records", ref("ProxyStored"), proxyType),
      "400": proxyError("Not JSON"),
      "404": proxyError("40401 unknown topic, 40402 unknown partition"),
      "413": proxyError("Body over 4 MB, over 10,000 records, or a record that is too large for the topic"),
      "415": proxyError("Content-Type is not application/vnd.kafka.json.v2+json"),
      "422": proxyError("Not of this form, or a delete without a valid key"),
      "503": proxyError("50003 as 503 of /send-data", retry),
    },
  };
  app.post("/topics/:topic", { ...rawBody(recordsType), schema: produce }, async (request, reply: FastifyReply) => {
    const table = tableOf((request.params as { topic: string }).topic, options);
    const records = rawArray(rawObject(readBody(request)).get("records"));
    if (!records) throw new Refusal(422, `"records" must be a list`);
    checkCount(records.length, `"records"`, 422);
    const rows: Row[] = [];
    for (const [i, record] of records.entries()) rows.push(await readRecord(record, i, table, options.topics));
    const places = await put(request, table, rows, options);
    const offsets = places.map((place) => ({ ...place, error_code: null, error: null }));
    return reply.type(proxyType).send(JSON.stringify({ offsets, key_schema_id: null, value_schema_id: null }));
  });
}

/** Describes rows, records and their answers. */
function addSchemas(app: FastifyInstance): void {
  const columns = tableNames.map((table) => `${table}: ${Object.keys(tables[table].columns).join(", ")}`).join("; ");
  const open = { additionalProperties: true };
  const most = { minItems: 1, maxItems: mostRecords };
  const add = ($id: string, schema: object) => app.addSchema({ $id, ...schema });
  add("Row", { type: "object", description: `Columns and values. ${columns}` });
  const topic_name = { ...text, description: `${tableNames.join(", ")}, or the topic's whole name` };
  const data = { oneOf: [ref("Row"), { ...list(ref("Row")), ...most }] };
  add("SendData", { ...object({ topic_name, data }), ...open });
  add("Place", object({ partition: whole, offset: whole }));
  add("Stored", object({ topic: text, stored: whole, offsets: list(ref("Place")) }));
  const record = {
    key: { description: "The row's key, as text or number. Default: the key in the row; a delete must have a key" },
    value: { description: "The row; null deletes the row with that key" },
    partition: maybe("integer"),
  };
  add("Records", { ...object({ records: { ...list({ ...object(record, ["value"]), ...open }), ...most } }), ...open });
  const none = { type: "null" };
  const place = object({ partition: whole, offset: whole, error_code: none, error: none });
  add("ProxyStored", object({ offsets: list(place), key_schema_id: none, value_schema_id: none }));
}

/** Route options for a body of this type that Fastify neither parses nor validates. */
export const rawBody = (type: string) => ({ preParsing: takes(type), validatorCompiler: () => () => true });

/** A hook that refuses bodies of another type before they are read. */
const takes =
  (type: string) =>
  async ({ headers }: FastifyRequest): Promise<void> => {
    const given = headers["content-type"];
    if (given?.split(";")[0]?.trim().toLowerCase() === type) return;
    throw new Refusal(
      415,
      `Content-Type must be ${type}, ${given ? `not "${given.slice(0, 100)}"` : "but none was given"}`,
    );
  };

/** The body's text; it is valid JSON. */
export function readBody(request: FastifyRequest): string {
  const bytes = request.body as Buffer | undefined;
  if (!bytes || !isUtf8(bytes)) throw new Refusal(400, "The body is not UTF-8 text");
  const text = bytes.toString();
  try {
    JSON.parse(text);
  } catch (error) {
    throw new Refusal(400, `The body is not valid JSON: ${(error as Error).message.slice(0, 200)}`);
  }
  return text;
}

const parsed = (text: string | undefined): unknown => (text === undefined ? undefined : JSON.parse(text));

function tableOf(name: string, { kafka, anyPrefix }: IntakeOptions): Table {
  const table = tableNames.find(
    (table) => name === table || name === topicOf(kafka, table) || (anyPrefix && name.endsWith(`.${table}`)),
  );
  if (table) return table;
  const known = tableNames.map((table) => `"${topicOf(kafka, table)}"`).join(", ");
  const remedy = tableNames.some((table) => name.endsWith(`.${table}`))
    ? "; start serve with --any-prefix to accept it"
    : "";
  throw new Refusal(404, `Topic "${name.slice(0, 100)}" not found; there are ${known}${remedy}`, { proxyCode: 40401 });
}

function checkCount(count: number, what: string, status: number): void {
  if (count === 0) throw new Refusal(status, `${what} is empty`);
  if (count > mostRecords) throw new Refusal(413, `${what} has ${count} rows; send ${mostRecords} at most`);
}

/** A row's key as decimal text, as `post` writes it; null if the row has none. */
function keyOf(table: Table, row: string): string | null {
  const columns = rawObject(row);
  return keyText(columns.get(tables[table].key) ?? columns.get("ind"));
}

function keyText(raw: string | undefined): string | null {
  if (raw?.startsWith('"')) return JSON.parse(raw) as string;
  return raw !== undefined && /^-?\d+$/.test(raw) ? raw : null;
}

/** The greatest key that silver can hold. */
const greatestKey = 2n ** 63n - 1n;

/** Whether cleaning accepts this key: digits that fit 64 bits. */
const isRowKey = (key: string | null) => key !== null && /^0*\d{1,19}$/.test(key) && BigInt(key) <= greatestKey;

async function readRecord(text: string, at: number, table: Table, topics: Topics): Promise<Row> {
  const record = rawObject(text);
  const value = record.get("value");
  if (!isObject(text) || value === undefined) throw new Refusal(422, `Record ${at} must be an object with a "value"`);
  const given = record.get("key");
  // Text and whole numbers are kept unchanged, as in the keys that post writes; other keys become their JSON.
  const key = given === undefined || given === "null" ? keyOf(table, value) : (keyText(given) ?? given);
  const isDelete = value === "null";
  if (isDelete && !isRowKey(key)) {
    const found = given === undefined ? "there is none" : `not ${given.slice(0, 100)}`;
    const rule = `its "key" must be a whole number from 0 to ${greatestKey} in digits`;
    throw new Refusal(422, `Record ${at} has no value, which deletes a row: ${rule}, ${found}`);
  }
  const row: Row = { key, value: isDelete ? null : value };
  const partition = parsed(record.get("partition")) ?? null;
  if (partition === null) return row;
  if (typeof partition !== "number" || !Number.isInteger(partition)) {
    throw new Refusal(422, `"partition" of record ${at} must be a whole number`);
  }
  const partitions = await topics.partitions(table, partition);
  if (partitions === undefined) throw new Refusal(503, "Kafka is unavailable: nothing was stored", retryAfter(5));
  if (partition < 0 || partition >= partitions) {
    throw new Refusal(404, `Partition ${partition} of record ${at} not found; there are ${partitions}`, {
      proxyCode: 40402,
    });
  }
  return { ...row, partition };
}

/** Stores rows, all or none, and returns their partitions and offsets. */
async function put(
  request: FastifyRequest,
  table: Table,
  rows: Row[],
  options: IntakeOptions,
): Promise<RecordMetadata[]> {
  const { kafka, topics, guard, store, onRows } = options;
  const topic = topicOf(kafka, table);
  const most = topics.maxMessageBytes(table);
  const big = rows.findIndex((row) => messageBytes(row) > most);
  if (big >= 0) throw new Refusal(413, `Row ${big} is larger than topic "${topic}" accepts, ${most} bytes`);
  const storing = store(rows.map((row) => ({ ...row, topic })));
  guard.hold(request, storing);
  const result = await storing;
  onRows(table, rows.length, result.outcome);
  if (result.outcome === "stored") return result.places;
  const reason = result.error.message;
  if (result.outcome === "not_stored") {
    throw new Refusal(503, `Nothing was stored: ${reason}`, { ...retryAfter(5), proxyCode: 50003 });
  }
  throw new Refusal(
    503,
    `It is unknown whether the rows were stored, all or none: ${reason}. Sending them again may duplicate them in the topic; silver still holds one row for each ind`,
    { ...retryAfter(5), proxyCode: 50003 },
  );
}
