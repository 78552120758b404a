/**
 * Prometheus metrics.
 *
 * @module
 */
import type { FastifyInstance } from "fastify";
import { Counter, collectDefaultMetrics, Gauge, Histogram, Registry } from "prom-client";
import { type Table, tableNames } from "../io.ts";
import type { SendResult } from "../kafka/publisher.ts";
import type { Batch } from "./batches.ts";
import type { Snapshot } from "./live.ts";

export interface Metrics {
  contentType: string;
  text(): Promise<string>;
  /** Measures how long each request takes. */
  watch(app: FastifyInstance): void;
  onBatch(batch: Batch): void;
  onRows(table: Table, rows: number, outcome: SendResult["outcome"]): void;
}

const seconds = [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10];
const batchSizes = [1, 3, 10, 30, 100, 300, 1_000, 3_000, 10_000];

/** Creates the registry; each scrape reads the tables' gauges from a snapshot. */
export function openMetrics(takeSnapshot: () => Promise<Snapshot>): Metrics {
  const registry = new Registry();
  const registers = [registry];
  const counter = <Label extends string>(name: string, help: string, labelNames: Label[]) =>
    new Counter({ name, help, labelNames, registers });
  const gauge = <Label extends string>(name: string, help: string, labelNames: Label[]) =>
    new Gauge({ name, help, labelNames, registers });
  const histogram = <Label extends string>(name: string, help: string, buckets: number[], labelNames: Label[] = []) =>
    new Histogram({ name, help, buckets, labelNames, registers });
  collectDefaultMetrics({ register: registry });
  const rows = counter("pipeline_http_rows_total", "Rows received over HTTP, by outcome", ["table", "outcome"]);
  const batches = counter("pipeline_transactions_total", "Kafka transactions of the HTTP API, by outcome", ["outcome"]);
  const batchSeconds = histogram("pipeline_transaction_seconds", "How long a Kafka transaction took", seconds);
  const batchRows = histogram("pipeline_transaction_rows", "Rows that shared a Kafka transaction", batchSizes);
  const requestSeconds = histogram(
    "http_request_duration_seconds",
    "How long a request took, by route and status",
    seconds,
    ["method", "route", "status"],
  );
  const stages = "in MySQL, posted by post, landed in bronze, in silver, superseded, deleted, rejected";
  const tableRows = gauge("pipeline_rows", `Rows at a stage: ${stages}`, ["table", "stage"]);
  const lag = gauge(
    "pipeline_lag_offsets",
    "Offsets of the topic that are not cleaned yet, transaction markers included",
    ["table"],
  );
  const about = "from the table's next change on; 0 if there is none";
  const behindSeconds = gauge("pipeline_behind_seconds", `Seconds that posting is behind MySQL, ${about}`, ["table"]);
  const behindBytes = gauge("pipeline_behind_bytes", `Bytes of MySQL's log that are not posted, ${about}`, ["table"]);
  for (const table of tableNames) rows.inc({ table, outcome: "stored" }, 0);

  return {
    contentType: registry.contentType,
    async text() {
      const { tables } = await takeSnapshot();
      for (const one of [tableRows, lag, behindSeconds, behindBytes]) one.reset();
      for (const table of tableNames) {
        const found = tables?.[table];
        if (!found) continue;
        const { in_mysql, posted, messages: landed, clean, superseded, deleted, rejected } = found;
        const counts = { in_mysql, posted, landed, clean, superseded, deleted, rejected };
        for (const [stage, n] of Object.entries(counts)) {
          if (n !== null) tableRows.set({ table, stage }, n);
        }
        if (found.lag !== null) lag.set({ table }, found.lag);
        const { seconds = null, bytes = null } = found.behind ?? {};
        if (seconds !== null) behindSeconds.set({ table }, seconds);
        if (bytes !== null) behindBytes.set({ table }, bytes);
      }
      return registry.metrics();
    },
    watch(app) {
      app.addHook("onResponse", async (request, reply) => {
        const labels = { method: request.method, route: request.routeOptions.url ?? "none", status: reply.statusCode };
        requestSeconds.observe(labels, reply.elapsedTime / 1000);
      });
    },
    onBatch({ outcome, messages, ms }) {
      batches.inc({ outcome });
      batchSeconds.observe(ms / 1000);
      batchRows.observe(messages);
    },
    onRows: (table, count, outcome) => rows.inc({ table, outcome }, count),
  };
}
