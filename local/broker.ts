/**
 * A private Kafka: one node that is broker and controller (KRaft).
 *
 * @module
 */
import { randomBytes } from "node:crypto";
import { closeSync, existsSync, openSync, renameSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { answers, type Guarded, untilReady } from "./processes.ts";
import type { KafkaProgram, Tools } from "./programs.ts";

/** Starts Kafka on 127.0.0.1, formatting its folder at the first time; resolves when it answers. */
export async function startKafka(
  program: KafkaProgram,
  { folder, ports, tools }: { folder: string; ports: { broker: number; controller: number }; tools: Tools },
): Promise<Guarded> {
  const log = join(folder, "kafka.log");
  const output = openSync(log, "a");
  const run = (flags: string[], main: string[]) =>
    tools.spawn(
      program.java,
      [
        ...flags,
        "-XX:+UseSerialGC",
        "-XX:-UsePerfData",
        "-Dorg.slf4j.simpleLogger.defaultLogLevel=warn",
        "-Dorg.slf4j.simpleLogger.showDateTime=true",
        "-Dorg.slf4j.simpleLogger.dateTimeFormat=yyyy-MM-dd HH:mm:ss",
        `-Dpinterest.services=${folder}`, // what names this folder in the command line
        "-cp",
        program.classpath,
        ...main,
      ],
      // Paths inside are relative: Java cannot read every name in every locale, and Kafka splits log.dirs at commas.
      { output, cwd: folder, env: { ...process.env, LC_ALL: "C.UTF-8" } },
    );

  if (!existsSync(join(folder, "kafka"))) {
    rmSync(join(folder, "kafka.unfinished"), { recursive: true, force: true });
    writeFileSync(join(folder, "kafka-format.properties"), properties(ports, "kafka.unfinished"));
    const id = randomBytes(16).toString("base64url").replace(/^-/, "A"); // an option must not begin with a dash
    const format = ["kafka.tools.StorageTool", "format", "-t", id, "-c", "kafka-format.properties"];
    const install = run(["-Xmx128m", "-XX:TieredStopAtLevel=1"], format);
    await untilReady(install, {
      name: `${program.name} for the first time`,
      log,
      deadline: 120_000,
      signal: tools.signal,
    });
    renameSync(join(folder, "kafka.unfinished"), join(folder, "kafka"));
    rmSync(join(folder, "kafka-format.properties"));
  }

  writeFileSync(join(folder, "kafka.properties"), properties(ports, "kafka"));
  const service = run(["-Xmx768m"], ["kafka.Kafka", "kafka.properties"]);
  closeSync(output);
  const answer = () => answers(ports.broker, apiVersions);
  await untilReady(service, { name: program.name, log, deadline: 120_000, signal: tools.signal, answer });
  return service;
}

/** An ApiVersions request, version 0: length 10, API 18, version, correlation id 1, no client id. */
const apiVersions = Buffer.from("0000000a0012000000000001ffff", "hex");

const properties = (ports: { broker: number; controller: number }, data: string) => `\
process.roles=broker,controller
node.id=1
controller.quorum.voters=1@127.0.0.1:${ports.controller}
listeners=PLAINTEXT://127.0.0.1:${ports.broker},CONTROLLER://127.0.0.1:${ports.controller}
advertised.listeners=PLAINTEXT://127.0.0.1:${ports.broker}
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
broker.session.timeout.ms=2000
broker.heartbeat.interval.ms=500
# From the heap; the default is 128 MB.
log.cleaner.dedupe.buffer.size=16777216
`;
