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
  /** Notes how long each request takes. */
  watch(app: FastifyInstance): void;
  onBatch(batch: Batch): void;
  onRows(table: Table, rows: number, outcome: SendResult["outcome"]): void;
}

const seconds = [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10];

/** Makes the registry; the tables' gauges are taken from a snapshot at the time of asking. */
export function openMetrics(takeSnapshot: () => Promise<Snapshot>): Metrics {
  const registry = new Registry();
  const registers = [registry];
  collectDefaultMetrics({ register: registry });
  const rows = new Counter({
    name: "pipeline_http_rows_total",
    help: "Rows that came in over HTTP, by what became of them",
    labelNames: ["table", "outcome"],
    registers,
  });
  const batches = new Counter({
    name: "pipeline_transactions_total",
    help: "Kafka transactions of the HTTP API, by outcome",
    labelNames: ["outcome"],
    registers,
  });
  const batchSeconds = new Histogram({
    name: "pipeline_transaction_seconds",
    help: "How long a Kafka transaction took",
    buckets: seconds,
    registers,
  });
  const batchRows = new Histogram({
    name: "pipeline_transaction_rows",
    help: "Rows that shared a Kafka transaction",
    buckets: [1, 3, 10, 30, 100, 300, 1_000, 3_000, 10_000],
    registers,
  });
  const requestSeconds = new Histogram({
    name: "http_request_duration_seconds",
    help: "How long a request took, by route and status",
    labelNames: ["method", "route", "status"],
    buckets: seconds,
    registers,
  });
  const tableRows = new Gauge({
    name: "pipeline_rows",
    help: "Rows at a stage: in MySQL, posted by post, landed in bronze, in silver, superseded, rejected",
    labelNames: ["table", "stage"],
    registers,
  });
  const lag = new Gauge({
    name: "pipeline_lag_offsets",
    help: "Offsets of the topic that are not cleaned yet",
    labelNames: ["table"],
    registers,
  });
  for (const table of tableNames) rows.inc({ table, outcome: "stored" }, 0);

  return {
    contentType: registry.contentType,
    async text() {
      const { tables } = await takeSnapshot();
      tableRows.reset();
      lag.reset();
      for (const table of tableNames) {
        const found = tables?.[table];
        if (!found) continue;
        const { in_mysql, posted, messages: landed, clean, superseded, rejected } = found;
        for (const [stage, n] of Object.entries({ in_mysql, posted, landed, clean, superseded, rejected })) {
          if (n !== null) tableRows.set({ table, stage }, n);
        }
        if (found.lag !== null) lag.set({ table }, found.lag);
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
