/**
 * Measures the HTTP API under load: `npm run bench:serve -- [--requests N] [--connections N] [--rows N]`.
 *
 * Starts private services and a server, posts rows with increasing keys to both endpoints, prints requests/s and
 * latencies, and compares the rows answered with 200 to the topic. The exit code is 1 if a row is lost or duplicated.
 *
 * @module
 */

import { type EventEmitter, once } from "node:events";
import { parseArgs } from "node:util";
import autocannon from "autocannon";
import { rowToJson, tables } from "../io.ts";
import { sampleRow } from "../local/sample/rows.ts";
import { openServices, readTopic } from "../test/support/services.ts";
import { start } from "../test/support/support.ts";

const { values } = parseArgs({
  options: {
    requests: { type: "string", default: "50000" },
    connections: { type: "string", default: "100" },
    rows: { type: "string", default: "1" },
  },
});
const [requests, connections, rows] = [values.requests, values.connections, values.rows].map(Number) as [
  number,
  number,
  number,
];
const columns = Object.entries(tables.pin.columns).map(([name, kind]) => ({ name, kind }));
/** A sample pin with another key. */
const pin = (key: number) => rowToJson(columns, [String(key), ...sampleRow("pin", key % 1000).slice(1)]);

const endpoints = {
  "/send-data": {
    type: "application/json",
    body: (pins: string[]) => `{"topic_name":"pin","data":${rows === 1 ? pins[0] : `[${pins.join(",")}]`}}`,
  },
  "/topics/load.pin": {
    type: "application/vnd.kafka.json.v2+json",
    body: (pins: string[]) => `{"records":[${pins.map((value) => `{"value":${value}}`).join(",")}]}`,
  },
};

const services = await openServices({ rows: 1 });
const server = start(["serve", "--data", services.data, "--prefix", "load", "--port", "0"]);
let failed = false;
try {
  await server.said(/Listening on \S+\n/);
  const url = /Listening on (\S+)/.exec(server.output())?.[1] as string;
  for (let tries = 0; tries < 100 && !(await fetch(`${url}/readyz`)).ok; tries++) {
    await new Promise((done) => setTimeout(done, 200));
  }
  const cpuSeconds = async () =>
    Number(/^process_cpu_seconds_total (\S+)/m.exec(await (await fetch(`${url}/metrics`)).text())?.[1]);
  let key = 0;
  const stored = new Set<number>();
  for (const [path, { type, body }] of Object.entries(endpoints)) {
    const statuses = new Map<number, number>();
    const before = await cpuSeconds();
    const run = autocannon({
      ...{ url, connections, amount: requests },
      requests: [
        {
          ...{ method: "POST", path, headers: { "content-type": type } },
          setupRequest: (request, context) => {
            const keys = Array.from({ length: rows }, () => key++);
            Object.assign(context, { keys });
            return { ...request, body: body(keys.map(pin)) };
          },
          onResponse: (status, _body, context) => {
            statuses.set(status, (statuses.get(status) ?? 0) + 1);
            if (status === 200) for (const one of (context as { keys: number[] }).keys) stored.add(one);
          },
        },
      ],
    });
    const [result] = (await once(run as unknown as EventEmitter, "done")) as [autocannon.Result];
    const { latency } = result;
    const cpu = Math.round((((await cpuSeconds()) - before) / requests) * 1e6);
    console.log(
      `POST ${path}, ${connections} connections, ${rows} row${rows === 1 ? "" : "s"} each: ${Math.round(requests / result.duration)} requests/s, p50 ${latency.p50} ms, p99 ${latency.p99} ms, answers ${JSON.stringify(Object.fromEntries(statuses))}, errors ${result.errors}, ${cpu} µs of the server's CPU a request`,
    );
  }
  const found = new Map<string, number>();
  for (const message of await readTopic(services.kafka, "load.pin")) {
    found.set(String(message.key), (found.get(String(message.key)) ?? 0) + 1);
  }
  const lost = [...stored].filter((one) => !found.has(String(one))).length;
  const doubled = [...found.values()].filter((times) => times > 1).length;
  console.log(`${stored.size} rows answered with 200, ${found.size} in the topic: ${lost} lost, ${doubled} doubled`);
  failed = lost > 0 || doubled > 0 || stored.size < 2 * requests * rows;
} finally {
  server.kill("SIGTERM");
  await server.done;
  await services.close();
}
process.exitCode = failed ? 1 : 0;
