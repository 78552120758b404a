/**
 * Compares the program with other tools: `npm run bench -- [--rows N] [--runs N] [--only read,post,clean]`.
 *
 * Starts private services with N sample rows a table. In each run, every tool does the same work in turn: the three
 * tables from MySQL to Kafka, and from Kafka to Parquet. Prints medians, and writes docs/bench.json and a chart. A tool
 * that is not installed is left out and listed.
 *
 * @module
 */

import { spawn } from "node:child_process";
import { existsSync, readdirSync } from "node:fs";
import { mkdir, rm, writeFile } from "node:fs/promises";
import { createRequire } from "node:module";
import { availableParallelism, cpus } from "node:os";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { parseArgs } from "node:util";
import { Kafka, logLevel } from "kafkajs";
import { type Table, tableNames, tables } from "../io.ts";
import { readState } from "../local/state.ts";
import { findPython } from "../test/support/python.ts";
import { openServices } from "../test/support/services.ts";
import { counted, cpuOf, median, stat } from "./measures.ts";

const file = (name: string) => fileURLToPath(new URL(name, import.meta.url));
const { values } = parseArgs({
  options: {
    rows: { type: "string", default: "1000000" },
    runs: { type: "string", default: "5" },
    only: { type: "string", default: "read,post,clean" },
  },
});
const [rows, runs] = [Number(values.rows), Number(values.runs)];

/** Cost of one tool: seconds, CPU-seconds of its processes, of the broker and of the database, and memory in MB. */
interface Cost {
  seconds: number;
  cpu: number;
  broker: number;
  database: number;
  memory: number;
}

/** Memory of the processes of a group, bytes; shared memory is counted for each process. */
function memoryOf(group: number): number {
  let pages = 0;
  for (const name of readdirSync("/proc")) {
    if (!/^[0-9]+$/.test(name)) continue;
    try {
      const fields = stat(name);
      if (Number(fields[2]) === group) pages += Number(fields[21]);
    } catch {
      // it has ended
    }
  }
  return pages * 4096;
}

const services = await openServices({ rows });
const { mysql, kafka } = services;
const python = await findPython(file("requirements.txt"));
const pidOf = (name: string) => {
  const pid = readState(dirname(services.creds))?.children.findLast((child) => child.name === name)?.pid;
  if (pid === undefined) throw new Error(`${name} does not run`);
  return pid;
};
const pids = { broker: pidOf("java"), database: pidOf("mariadbd") };

/** Runs a shell command to its end. The shell counts the CPU time of its processes; their memory is sampled. */
async function measure(command: string): Promise<Cost> {
  const before = { broker: cpuOf(pids.broker), database: cpuOf(pids.database) };
  const since = performance.now();
  const child = spawn("bash", ["-c", `TIMEFORMAT='cpu %U %S'; time { ${command}; }`], {
    detached: true,
    stdio: ["ignore", "ignore", "pipe"],
    cwd: services.folder.path,
    env: {
      ...process.env,
      ...{ MYSQL_PWD: mysql.password, HOST: mysql.host, PORT: String(mysql.port), DBUSER: mysql.user },
      ...{ DATABASE: mysql.database, BROKER: kafka.brokers[0], LC_ALL: "C" },
    },
  });
  let stderr = "";
  child.stderr.on("data", (data) => {
    stderr += data;
  });
  let memory = 0;
  const timer = setInterval(() => {
    memory = Math.max(memory, memoryOf(child.pid as number));
  }, 50);
  const code = await new Promise<number | null>((resolve) => child.on("close", resolve));
  clearInterval(timer);
  const seconds = (performance.now() - since) / 1000;
  const cpu = /cpu ([0-9.]+) ([0-9.]+)\s*$/.exec(stderr);
  if (code !== 0 || !cpu) throw new Error(`${command} ended with ${code}: ${stderr.slice(-2000)}`);
  return {
    ...{ seconds, cpu: Number(cpu[1]) + Number(cpu[2]), memory: memory / 1e6 },
    ...{ broker: cpuOf(pids.broker) - before.broker, database: cpuOf(pids.database) - before.database },
  };
}

const missing = (program: string) =>
  process.env.PATH?.split(":").some((folder) => existsSync(join(folder, program)))
    ? undefined
    : `${program} is not installed`;
const allOf = (command: (table: Table) => string) =>
  `${tableNames.map((table) => `{ set -o pipefail; ${command(table)}; } & pids="$pids $!";`).join(" ")} for pid in $pids; do wait $pid || exit 1; done`;
const quoted = (text: string) => `'${text.replaceAll("'", "'\\''")}'`;
const peers = `${quoted(python)} ${quoted(file("peers.py"))}`;
const program = [process.execPath, file("../bin/pipeline")];
const own = (command: string, prefix: string, folder: string) =>
  [...program, command, "--quiet", "--creds", services.creds, "--data", folder, "--prefix", prefix]
    .map(quoted)
    .join(" ");

/** The statement with which the database returns a table's keys and messages. */
function messageSql(table: Table): string {
  const { source, key, columns } = tables[table];
  const pairs = Object.keys(columns).map((name) => `'${name}', \`${name}\``);
  return `SELECT \`${key}\`, JSON_OBJECT(${pairs.join(", ")}) FROM ${source} ORDER BY \`${key}\``;
}

interface Way {
  /** `read`: the speed of the database alone. */
  work: "read" | "post" | "clean";
  name: string;
  lacks?: string | undefined;
  run: (prefix: string, folder: string) => Promise<Cost>;
}

/** A command that prints a query's rows as fast as they arrive. */
const select = (sql: string): string =>
  `mariadb --no-defaults --protocol=tcp --skip-ssl -h $HOST -P $PORT -u $DBUSER --quick -N -r -e "${sql.replaceAll("`", "\\`")}" $DATABASE`;

const ways: Way[] = [
  {
    work: "read",
    name: "mariadb > /dev/null",
    lacks: missing("mariadb"),
    run: () => {
      const all = (table: Table) => `SELECT * FROM ${tables[table].source} ORDER BY \`${tables[table].key}\``;
      return measure(allOf((table) => `${select(all(table))} > /dev/null`));
    },
  },
  {
    work: "post",
    name: "this program",
    run: (prefix, folder) => measure(own("post", prefix, folder)),
  },
  {
    work: "post",
    name: "mariadb | kcat",
    lacks: missing("mariadb") ?? missing("kcat"),
    run: (prefix) =>
      measure(
        allOf(
          (table) =>
            `${select(messageSql(table))} | kcat -P -q -b $BROKER -t ${prefix}.${table} -p 0 -K '\t' -X acks=all -X linger.ms=20 -X batch.size=1000000 -X queue.buffering.max.messages=500000`,
        ),
      ),
  },
  {
    work: "post",
    name: "Python: PyMySQL, orjson, confluent-kafka",
    run: (prefix) =>
      measure(allOf((table) => `${peers} post ${tables[table].source} ${tables[table].key} ${prefix}.${table}`)),
  },
  {
    work: "clean",
    name: "this program",
    run: (prefix, folder) => measure(own("clean", prefix, folder)),
  },
  {
    work: "clean",
    name: "kcat > file, DuckDB (no checks)",
    lacks: missing("kcat"),
    run: (prefix, folder) => {
      const land = allOf(
        (table) => `kcat -C -q -e -o beginning -b $BROKER -t ${prefix}.${table} -f '%s\\n' > "${folder}/${table}.json"`,
      );
      const convert = tableNames.map(
        (table) =>
          `${peers} parquet "${folder}/${table}.json" ${Object.keys(tables[table].columns)} "${folder}/${table}.parquet"`,
      );
      return measure([land, ...convert].join("; "));
    },
  },
];

const admin = new Kafka({ brokers: kafka.brokers, logLevel: logLevel.NOTHING }).admin();
const topicsOf = (prefix: string) => tableNames.map((table) => `${prefix}.${table}`);

const wanted = ways.filter(({ work }) => values.only.split(",").includes(work));
for (const { work, name, lacks } of wanted) if (lacks) console.log(`left out: ${work} by ${name}, because ${lacks}`);
const able = wanted.filter(({ lacks }) => !lacks);
const costs = new Map<Way, Cost[]>(able.map((way) => [way, []]));
try {
  await admin.connect();
  await measure(own("post", "source", join(services.folder.path, "source")));
  for (let i = 1; i <= runs; i++) {
    for (const way of able) {
      const folder = join(services.folder.path, "way");
      await mkdir(folder);
      // The cleaning reads this program's messages.
      const prefix = way.work === "clean" ? "source" : `run${i}.${able.indexOf(way)}`;
      if (way.work === "post" && way.name !== "this program") {
        await admin.createTopics({ topics: topicsOf(prefix).map((topic) => ({ topic, numPartitions: 1 })) });
      }
      const cost = await way.run(prefix, folder);
      costs.get(way)?.push(cost);
      const { seconds, cpu, broker, database, memory } = cost;
      console.log(
        `run ${i}: ${way.work} by ${way.name}: ${seconds.toFixed(1)} s, CPU ${cpu.toFixed(1)} + broker ${broker.toFixed(1)} + database ${database.toFixed(1)} s, ${Math.round(memory)} MB`,
      );
      if (way.work === "post") {
        const counts = await counted(admin, topicsOf(prefix));
        if (counts.some((count) => count < rows)) throw new Error(`${way.name} posted ${counts} of ${rows} rows each`);
        await admin.deleteTopics({ topics: topicsOf(prefix) });
      }
      await rm(folder, { recursive: true });
    }
  }
} finally {
  await admin.disconnect();
  await services.close();
}

const millions = (rows * tableNames.length) / 1e6;
const results = able.map((way) => {
  const of = (get: (cost: Cost) => number) => median((costs.get(way) ?? []).map(get));
  return {
    ...{ work: way.work, way: way.name, rowsPerSecond: Math.round((millions * 1e6) / of((c) => c.seconds)) },
    // CPU-seconds per million rows, that is microseconds per row.
    ...{ cpu: of((c) => c.cpu) / millions, memoryMb: Math.round(of((c) => c.memory)) },
    ...{ brokerCpu: of((c) => c.broker) / millions, databaseCpu: of((c) => c.database) / millions },
  };
});
const machine = `${availableParallelism()} cores of ${cpus()[0]?.model.trim()}, Node ${process.version}`;
console.log(`\nMedian of ${runs} runs with ${rows.toLocaleString("en")} rows a table on ${machine}\n`);
console.log(
  "| work | by | rows/s | CPU, µs a row | of the broker | of the database | memory | rows/s to ours | CPU to ours |",
);
console.log("| --- | --- | --: | --: | --: | --: | --: | --: | --: |");
for (const result of results) {
  const same = result.work === "read" ? "post" : result.work;
  const ours = results.find(({ work, way }) => work === same && way === "this program");
  const cells = [
    ...[result.work, result.way.replace("|", "\\|"), result.rowsPerSecond.toLocaleString("en")],
    ...[result.cpu, result.brokerCpu, result.databaseCpu].map((n) => n.toFixed(1)),
    `${result.memoryMb} MB`,
    (result.rowsPerSecond / (ours?.rowsPerSecond ?? Number.NaN)).toFixed(2),
    (result.cpu / (ours?.cpu ?? Number.NaN)).toFixed(2),
  ];
  console.log(`| ${cells.join(" | ")} |`);
}
await writeFile(file("../docs/pictures/bench.svg"), picture());
await writeFile(file("../docs/bench.json"), `${JSON.stringify({ machine, rows, runs, results }, null, 2)}\n`);
process.exit(); // kafkajs leaves a timer behind

/** The results as bars on white, which works on light and dark pages. */
function picture(): string {
  const echarts = createRequire(import.meta.url)("echarts/dist/echarts.min.js") as typeof import("echarts");
  const chart = echarts.init(null, null, { renderer: "svg", ssr: true, width: 900, height: 40 + 42 * results.length });
  const bars = [...results].reverse();
  const panel = (gridIndex: number, data: number[], digits: number) => ({
    ...{ type: "bar" as const, xAxisIndex: gridIndex, yAxisIndex: gridIndex, data, barWidth: 18 },
    label: {
      show: true,
      position: "right" as const,
      formatter: ({ value }: { value: unknown }) =>
        Number(value).toLocaleString("en", { maximumFractionDigits: digits }),
    },
    itemStyle: {
      color: ({ dataIndex }: { dataIndex: number }) =>
        bars[dataIndex]?.way === "this program" ? "#bd081c" : "#9aa0a6",
    },
  });
  const hidden = { type: "value" as const, show: false };
  const names = bars.map(({ work, way }) => `${work}: ${way}`);
  chart.setOption({
    animation: false,
    backgroundColor: "#fff",
    title: [
      { text: "rows per second", left: 300, textStyle: { fontSize: 13 } },
      { text: "CPU of its processes, µs a row", left: 620, textStyle: { fontSize: 13 } },
    ],
    grid: [
      { left: 300, width: 220, top: 30, bottom: 5 },
      { left: 620, width: 200, top: 30, bottom: 5 },
    ],
    xAxis: [hidden, { ...hidden, gridIndex: 1 }],
    yAxis: [
      { type: "category", data: names, axisTick: { show: false }, axisLabel: { color: "#333" } },
      { type: "category", data: names, show: false, gridIndex: 1 },
    ],
    series: [
      panel(
        0,
        bars.map((r) => r.rowsPerSecond),
        0,
      ),
      panel(
        1,
        bars.map((r) => r.cpu),
        1,
      ),
    ],
  });
  return chart.renderToSVGString();
}
