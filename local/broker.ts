/**
 * Runs a private Kafka: one node that is broker and controller (KRaft), or a broker with ZooKeeper (Kafka up to 3.9).
 *
 * @module
 */

import { randomBytes } from "node:crypto";
import { closeSync, existsSync, openSync, readdirSync, renameSync, rmSync, writeFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { shellWord } from "../runtime/program.ts";
import { answers, ask, freePort, type Guarded, type Tools, untilReady } from "./processes.ts";
import type { KafkaProgram } from "./programs.ts";
import { requests } from "./requests.ts";
import {
  copyFormatted,
  firstTransaction,
  keepFormatted,
  makeArchive,
  quickClasses,
  quickCompiler,
} from "./warm_start.ts";

/** The folder, ports and settings of a Kafka. */
interface KafkaPlace {
  folder: string;
  ports: { broker: number } & ({ controller: number } | { zookeeper: number });
  /** For tests: Kafka settings that override those set here (a broker behind a proxy, one of several, secured). */
  settings?: Record<string, string | number>;
  /** For tests: the id that brokers of one cluster share. Default: random. */
  clusterId?: string;
  /** It serves one command: it starts faster, and is slower only after some 15 million rows. */
  brief?: boolean;
  /** For tests: more arguments for the format command. */
  format?: string[];
}

/** Starts Kafka on 127.0.0.1, and formats its folder at the first start. Resolves when it answers. */
export async function startKafka(
  program: KafkaProgram,
  place: KafkaPlace,
  tools: Tools,
  flags: string[] = quickClasses(program),
): Promise<Guarded> {
  const { folder, ports, brief } = place;
  const java = openJava(program, { folder, log: "kafka.log" }, tools);
  const { log } = java;
  try {
    if ("zookeeper" in ports) await untilUnregistered(ports.zookeeper, tools.signal);
    else if (!existsSync(join(folder, dataOf.controller))) await format(program, place, { java, tools });
    const data = "zookeeper" in ports ? dataOf.zookeeper : dataOf.controller;
    writeFileSync(join(folder, "kafka.properties"), properties(place, data));
    const service = java.run(
      ["-Xmx768m", ...(brief ? [quickCompiler] : []), ...flags],
      ["kafka.Kafka", "kafka.properties"],
    );
    const answer = () => answers(ports.broker, requests.apiVersions);
    await untilReady(service, { name: program.name, log, signal: tools.signal, answer });
    if ("zookeeper" in ports) await untilKnown(topicsIn(join(folder, data)), ports.broker, tools.signal);
    for (const request of firstTransaction) void ask(ports.broker, request, () => true);
    return service;
  } finally {
    java.close();
  }
}

/** Formats the folder of a Kafka without ZooKeeper, or copies a formatted one. */
async function format(
  program: KafkaProgram,
  place: KafkaPlace,
  { java, tools: { signal } }: { java: ReturnType<typeof openJava>; tools: Tools },
): Promise<void> {
  const { folder } = place;
  const unfinished = join(folder, "kafka.unfinished");
  rmSync(unfinished, { recursive: true, force: true });
  const ids = { cluster: place.clusterId ?? newId(), directory: newId() };
  const isPlain = !place.settings && !place.format;
  if (!(isPlain && copyFormatted(program, unfinished, ids))) {
    writeFileSync(join(folder, "format.properties"), properties(place, "kafka.unfinished"));
    const formatting = java.run(
      ["-Xmx128m", quickCompiler],
      [...formatCommand, "-t", ids.cluster, "-c", "format.properties", ...(place.format ?? [])],
    );
    await untilReady(formatting, { name: `${program.name} for the first time`, log: java.log, signal });
    rmSync(join(folder, "format.properties"));
    if (isPlain) keepFormatted(program, unfinished);
  }
  renameSync(unfinished, join(folder, dataOf.controller));
}

/** Creates the archive of {@link quickClasses} with a start in a separate folder. */
export const keepClasses = (program: KafkaProgram, services: string, tools: Tools): Promise<void> =>
  makeArchive(program, { services, tools }, async (folder, flags) => {
    const ports = { broker: await freePort(), controller: await freePort() };
    return startKafka(program, { folder, ports }, tools, flags);
  });

const formatCommand = ["kafka.tools.StorageTool", "format"];

/** A random id of a cluster or data folder; exported for tests. */
export const newId = (): string => randomBytes(16).toString("base64url").replace(/^-/, "A"); // must not look like an option

/** The broker's data folder with and without ZooKeeper; their formats differ. */
const dataOf = { controller: "kafka", zookeeper: "kafka-by-zookeeper" };

/**
 * Refuses a folder whose Kafka was created in the other mode.
 *
 * @throws `Error` that says what to do
 */
export function checkMode(folder: string, { zookeeper }: { zookeeper: boolean }): void {
  if (!existsSync(join(folder, zookeeper ? dataOf.controller : dataOf.zookeeper))) return;
  const [how, instead] = zookeeper
    ? ["without ZooKeeper", "choose another folder with --data"]
    : ["with ZooKeeper", `use --zookeeper --data ${shellWord(dirname(dirname(folder)))}`];
  throw new Error(`The Kafka in "${folder}" was created ${how}: ${instead}`);
}

/** Starts a ZooKeeper on 127.0.0.1. Resolves when it serves. */
export async function startZookeeper(
  program: KafkaProgram,
  { folder, port }: { folder: string; port: number },
  tools: Tools,
): Promise<Guarded> {
  const java = openJava(program, { folder, log: "zookeeper.log" }, tools);
  try {
    writeFileSync(join(folder, "zookeeper.properties"), zookeeperProperties(port));
    const flags = [
      ...["-Xmx256m", quickCompiler],
      "-Dzookeeper.forceSync=no", // writes reach the operating system but are not synced, as with the database
      "-Dzookeeper.jmx.log4j.disable=true",
    ];
    const main = "org.apache.zookeeper.server.quorum.QuorumPeerMain";
    const service = java.run(flags, [main, "zookeeper.properties"]);
    const answer = async () => (await sessionsOf(port)) !== undefined;
    await untilReady(service, { name: "ZooKeeper", log: java.log, signal: tools.signal, answer });
    return service;
  } finally {
    java.close();
  }
}

/** Waits until the session of a killed broker has expired: before that, ZooKeeper refuses the same broker id. */
async function untilUnregistered(port: number, signal: AbortSignal): Promise<void> {
  const deadline = Date.now() + 3 * sessionMs;
  while ((await sessionsOf(port))?.includes("/brokers/ids/1") !== false && Date.now() < deadline)
    await sleep(50, null, { signal });
}

/** ZooKeeper's sessions and registered brokers; `undefined` until it serves: it answers before it has loaded its data. */
async function sessionsOf(port: number): Promise<string | undefined> {
  const dump = String(await ask(port, "dump"));
  return dump.includes("ephemeral nodes dump") ? dump : undefined;
}

/** The topics with partitions in a broker's data folder. */
const topicsIn = (data: string): string[] =>
  existsSync(data) ? readdirSync(data).flatMap((name) => /^(.+)-\d+$/.exec(name)?.[1] ?? []) : [];

/** Waits until the metadata contains the topics: with ZooKeeper, a broker answers before it has loaded them. */
async function untilKnown(topics: string[], port: number, signal: AbortSignal): Promise<void> {
  const isWhole = (said: Buffer) => said.length >= 4 && said.length >= 4 + said.readInt32BE(0);
  const deadline = Date.now() + 20_000; // the folder of a deleted topic may remain
  while (Date.now() < deadline) {
    const known = await ask(port, requests.metadata, isWhole);
    if (topics.every((topic) => known.includes(topic))) return;
    await sleep(50, null, { signal });
  }
}

/** Runs Java with a log in a folder. The command line contains the folder. */
function openJava({ java, classpath }: KafkaProgram, { folder, log }: { folder: string; log: string }, tools: Tools) {
  const path = join(folder, log);
  const output = openSync(path, "a");
  return {
    log: path,
    run: (flags: string[], main: string[]) =>
      tools.spawn(
        java,
        [
          ...flags,
          "-XX:+UseSerialGC",
          "-XX:-UsePerfData", // would leave a file in /tmp
          "-Dorg.slf4j.simpleLogger.defaultLogLevel=warn",
          "-Dorg.slf4j.simpleLogger.showDateTime=true",
          "-Dorg.slf4j.simpleLogger.dateTimeFormat=yyyy-MM-dd HH:mm:ss",
          `-Dpinterest.services=${folder}`, // for isRunning
          ...["-cp", classpath],
          ...main,
        ],
        // Its paths are relative, because Java cannot read every name in every locale and Kafka splits log.dirs at commas.
        { output, cwd: folder, env: { ...process.env, LC_ALL: "C.UTF-8" } },
      ),
    close: () => closeSync(output),
  };
}

/** Time until ZooKeeper or the controller drops a killed broker, ms. Defaults: 18 s and 9 s. */
const sessionMs = 3_000;

const properties = ({ ports, settings = {} }: KafkaPlace, data: string) => `\
${"zookeeper" in ports ? byZookeeper(ports) : byController(ports)}
log.dirs=${data}
auto.create.topics.enable=false
group.initial.rebalance.delay.ms=0
# One node: nothing to replicate to, and few partitions to open at every start.
offsets.topic.num.partitions=1
offsets.topic.replication.factor=1
transaction.state.log.num.partitions=1
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
# Each thread keeps a buffer of the size of its largest message: with 8 and 3 threads, as by default, Kafka refuses
# messages of 100 MB after a while, because Java has as much direct memory as heap.
num.io.threads=4
num.network.threads=2
# Part of the heap; the default is 128 MB.
log.cleaner.dedupe.buffer.size=16777216
${Object.entries(settings)
  .map(([name, value]) => `${name}=${value}`)
  .join("\n")}
`;

const byController = (ports: { broker: number; controller: number }) => `\
process.roles=broker,controller
node.id=1
controller.quorum.voters=1@127.0.0.1:${ports.controller}
listeners=PLAINTEXT://127.0.0.1:${ports.broker},CONTROLLER://127.0.0.1:${ports.controller}
advertised.listeners=PLAINTEXT://127.0.0.1:${ports.broker}
controller.listener.names=CONTROLLER
broker.session.timeout.ms=${sessionMs}
broker.heartbeat.interval.ms=500
share.coordinator.state.topic.num.partitions=1
share.coordinator.state.topic.replication.factor=1
share.coordinator.state.topic.min.isr=1`;

const byZookeeper = (ports: { broker: number; zookeeper: number }) => `\
broker.id=1
zookeeper.connect=127.0.0.1:${ports.zookeeper}
zookeeper.session.timeout.ms=${sessionMs}
zookeeper.connection.timeout.ms=30000
listeners=PLAINTEXT://127.0.0.1:${ports.broker}`;

const zookeeperProperties = (port: number) => `\
dataDir=./zookeeper
clientPort=${port}
clientPortAddress=127.0.0.1
admin.enableServer=false
# Sessions, and the registered brokers.
4lw.commands.whitelist=dump
# Sessions last 2 to 20 ticks.
tickTime=500
autopurge.purgeInterval=24
`;
