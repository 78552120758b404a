/**
 * A private Kafka: one node that is broker and controller (KRaft).
 *
 * @module
 */
import { randomBytes } from "node:crypto";
import { closeSync, copyFileSync, existsSync, mkdirSync, openSync, renameSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { answers, freePort, type Guarded, untilReady, within } from "./processes.ts";
import type { KafkaProgram, Tools } from "./programs.ts";

/** Where a Kafka lives. */
export interface KafkaPlace {
  folder: string;
  /** `advertised`: the port that clients are told to use, where something stands between them and the broker. */
  ports: { broker: number; controller: number; advertised?: number };
}

/** Starts Kafka on 127.0.0.1, formatting its folder at the first time; resolves when it answers. */
export async function startKafka(
  program: KafkaProgram,
  place: KafkaPlace,
  tools: Tools,
  flags: string[] = quickClasses(program),
): Promise<Guarded> {
  const { folder, ports } = place;
  const log = join(folder, "kafka.log");
  const output = openSync(log, "a");
  const run = (flags: string[], main: string[]) =>
    tools.spawn(
      program.java,
      [
        ...flags,
        "-XX:+UseSerialGC",
        "-XX:-UsePerfData", // leaves a file in /tmp
        "-Dorg.slf4j.simpleLogger.defaultLogLevel=warn",
        "-Dorg.slf4j.simpleLogger.showDateTime=true",
        "-Dorg.slf4j.simpleLogger.dateTimeFormat=yyyy-MM-dd HH:mm:ss",
        `-Dpinterest.services=${folder}`, // so that the command line names the folder
        "-cp",
        program.classpath,
        ...main,
      ],
      // Paths inside are relative: Java cannot read every name in every locale, and Kafka splits log.dirs at commas.
      { output, cwd: folder, env: { ...process.env, LC_ALL: "C.UTF-8" } },
    );
  try {
    if (!existsSync(join(folder, "kafka"))) {
      rmSync(join(folder, "kafka.unfinished"), { recursive: true, force: true });
      writeFileSync(join(folder, "format.properties"), properties(ports, "kafka.unfinished"));
      const id = randomBytes(16).toString("base64url").replace(/^-/, "A"); // no option begins like that
      const install = run(
        ["-Xmx128m", "-XX:TieredStopAtLevel=1"],
        ["kafka.tools.StorageTool", "format", "-t", id, "-c", "format.properties"],
      );
      await untilReady(install, { name: `${program.name} for the first time`, log, signal: tools.signal });
      renameSync(join(folder, "kafka.unfinished"), join(folder, "kafka"));
      rmSync(join(folder, "format.properties"));
    }
    writeFileSync(join(folder, "kafka.properties"), properties(ports, "kafka"));
    const service = run(["-Xmx768m", ...flags], ["kafka.Kafka", "kafka.properties"]);
    const answer = () => answers(ports.broker, apiVersions);
    await untilReady(service, { name: program.name, log, signal: tools.signal, answer });
    return service;
  } finally {
    closeSync(output);
  }
}

/** An ApiVersions request, version 0: length 10, API 18, version, correlation id 1, no client id. */
const apiVersions = Buffer.from("0000000a0012000000000001ffff", "hex");

/** Half of a start is loading some 7,000 classes. Java can keep them as they are in memory: a start takes half the CPU. */
const quickClasses = ({ archive }: KafkaProgram) =>
  archive && existsSync(archive) ? [`-XX:SharedArchiveFile=${archive}`, "-Xlog:disable"] : [];

/** Makes that archive by a start in a folder of its own. Should it fail, Kafka goes without. */
export async function keepClasses(program: KafkaProgram, services: string, tools: Tools): Promise<void> {
  const { archive } = program;
  if (!archive || existsSync(archive)) return;
  tools.say(`Preparing ${program.name} for quick starts, once`);
  const folder = join(services, "kafka-classes");
  const unfinished = `${archive}.${process.pid}`;
  try {
    rmSync(folder, { recursive: true, force: true });
    mkdirSync(folder);
    const ports = { broker: await freePort(), controller: await freePort() };
    const flags = [`-XX:ArchiveClassesAtExit=${join(folder, "archive")}`, "-Xlog:disable"];
    const service = await startKafka(program, { folder, ports }, tools, flags);
    service.child.kill("SIGTERM");
    if (!(await within(60_000, service.ended))) await service.stop();
    tools.signal.throwIfAborted();
    copyFileSync(join(folder, "archive"), unfinished);
    renameSync(unfinished, archive);
  } catch (error) {
    if (tools.signal.aborted) throw error;
    writeFileSync(archive, ""); // Java makes nothing of it and goes without
  } finally {
    rmSync(folder, { recursive: true, force: true });
    rmSync(unfinished, { force: true });
  }
}

const properties = ({ broker, controller, advertised = broker }: KafkaPlace["ports"], data: string) => `\
process.roles=broker,controller
node.id=1
controller.quorum.voters=1@127.0.0.1:${controller}
listeners=PLAINTEXT://127.0.0.1:${broker},CONTROLLER://127.0.0.1:${controller}
advertised.listeners=PLAINTEXT://127.0.0.1:${advertised}
controller.listener.names=CONTROLLER
log.dirs=${data}
auto.create.topics.enable=false
group.initial.rebalance.delay.ms=0
# One node: nothing to replicate to, and few partitions to open at every start.
offsets.topic.num.partitions=1
offsets.topic.replication.factor=1
transaction.state.log.num.partitions=1
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
share.coordinator.state.topic.num.partitions=1
share.coordinator.state.topic.replication.factor=1
share.coordinator.state.topic.min.isr=1
# After a kill -9 the controller refuses the broker until its former session is over; the default is 9 s.
broker.session.timeout.ms=3000
broker.heartbeat.interval.ms=500
# From the heap; the default is 128 MB.
log.cleaner.dedupe.buffer.size=16777216
`;
