/**
 * Finds or starts the services that a command needs.
 *
 * @module
 */

import { dirname, join } from "node:path";
import { explainMysql, isTransientMysql } from "../db_conn/errors.ts";
import { connectMysql, databaseId, type MysqlSettings } from "../db_conn.ts";
import { count } from "../io/text.ts";
import type { Table } from "../io.ts";
import { connectReader } from "../kafka/client.ts";
import { isTransientKafka } from "../kafka/errors.ts";
import type { KafkaSettings } from "../kafka/settings.ts";
import { checkIdentity, readIdentity } from "../lake/owner.ts";
import { loadSample } from "../local/sample/load.ts";
import { findServices, type Services, useServices } from "../local/services.ts";
import type { ServiceName } from "../local/state.ts";
import { cacheFolder } from "../runtime/cache.ts";
import { UsageError } from "../runtime/errors.ts";
import { retry } from "../runtime/retry.ts";
import type { Arguments } from "./arguments.ts";
import { type Credentials, findCredentials, ownKafka } from "./credentials.ts";
import type { Command } from "./options.ts";
import type { Terminal } from "./terminal.ts";

/** The arguments of a command, and its surroundings. */
export interface Context extends Arguments {
  signal: AbortSignal;
  terminal: Terminal;
  /** When the command started, ms. */
  started: number;
}

/** The services that a command needs. */
export interface Needs {
  mysql: boolean;
  kafka: boolean;
}

/** How to reach the services. */
export interface Connections extends AsyncDisposable {
  mysql: MysqlSettings;
  kafka: KafkaSettings;
  services: Services | undefined;
}

/** Commands that fill an empty private database with the sample. */
const fillsDatabase: Command[] = ["run", "up", "post", "emulate", "explore"];

/** Finds or starts the services that a command needs, and fills an empty private database. */
export async function connect(context: Context, needs: Needs): Promise<Connections> {
  const { data, prefix, signal, terminal, rows, waitMs } = context;
  const creds = await findCredentials(context.creds);
  const from = creds?.from ?? "";
  for (const warning of creds?.warnings ?? []) terminal.warn(warning);
  if (rows !== undefined && creds?.mysql) {
    throw new UsageError(`--rows creates sample data in the private database only, but "${from}" names another one`);
  }
  const zookeeper = context.flags.has("zookeeper");
  if (zookeeper && creds?.kafka) {
    throw new UsageError(`--zookeeper starts a private Kafka, but "${from}" names another one: remove one of them`);
  }
  const own = { mysql: needs.mysql && !creds?.mysql, kafka: needs.kafka && !creds?.kafka };
  const say = (text: string) => terminal.say(text);
  if (own.mysql || own.kafka) {
    cacheFolder(); // refuses an unusable one before anything is started
    sayOthers(context);
  }
  const services =
    own.mysql || own.kafka
      ? await useServices({
          dataDir: data,
          ...own,
          zookeeper,
          keep: context.command === "up",
          say,
          onProgress: terminal.show,
          signal,
        })
      : undefined;
  try {
    const mysql = creds?.mysql ?? (services?.mysql as MysqlSettings);
    const kafka: KafkaSettings = creds?.kafka ?? ownKafka(services?.kafka?.brokers ?? []);
    if (prefix !== undefined) kafka.prefix = prefix;
    sayUsed(context, { ...(needs.mysql && { mysql }), ...(needs.kafka && { kafka }), creds });
    if (own.mysql && services?.mysql && fillsDatabase.includes(context.command)) {
      const progress = terminal.progress("sample");
      const onProgress = (table: Table, done: number, total: number) => {
        progress.set(table, done, total);
        if (done === total) progress.finish(table);
      };
      const options = { ...(rows !== undefined && { rows }), waitMs, signal, onProgress };
      const posts = await loadSample(services.mysql, options).catch((error: unknown) => {
        throw explainMysql(error, mysql);
      });
      progress.end();
      if (rows !== undefined && posts !== undefined && posts > rows)
        terminal.say(`The database already has ${count(posts)} sample posts; --rows ${rows} adds none`);
    }
    return { mysql, kafka, services, [Symbol.asyncDispose]: async () => services?.[Symbol.asyncDispose]() };
  } catch (error) {
    const reason = services?.lost.aborted ? services.lost.reason : error;
    await services?.[Symbol.asyncDispose]();
    throw reason;
  }
}

/** Says which services a command uses, and where their settings are from. */
export function sayUsed(
  { terminal, flags }: Context,
  { mysql, kafka, creds }: { mysql?: MysqlSettings; kafka?: KafkaSettings; creds: Credentials | undefined },
): void {
  const from = (service: "mysql" | "kafka", embedded = "embedded") => (creds?.[service] ? creds.from : embedded);
  if (mysql) terminal.say(`Using MySQL ${mysql.host}:${mysql.port}/${mysql.database} (${from("mysql")})`);
  if (kafka) {
    const embedded = flags.has("zookeeper") ? "embedded, with ZooKeeper" : "embedded";
    terminal.say(`Using Kafka ${kafka.brokers.join(",")} (${from("kafka", embedded)}), topics ${kafka.prefix}.*`);
  }
}

/** The services that a command can ask without starting any. */
export interface FoundServices {
  mysql?: MysqlSettings;
  kafka?: KafkaSettings;
  creds: Credentials | undefined;
  /** The private services that would be used but do not run. */
  stopped: ServiceName[];
}

/** Finds the services that are configured, and the private ones that run. */
export async function findServicesOf({ creds: named, data, prefix, flags }: Context): Promise<FoundServices> {
  const creds = await findCredentials(named);
  const running = findServices({ dataDir: data });
  const mysql = creds?.mysql ?? running?.mysql;
  const kafka = creds?.kafka ?? (running?.kafka && ownKafka(running.kafka.brokers));
  const stopped: ServiceName[] = [];
  if (!mysql) stopped.push("mysql");
  if (!kafka) stopped.push(flags.has("zookeeper") ? "zookeeper" : "kafka");
  return {
    ...(mysql && { mysql }),
    ...(kafka && { kafka: prefix === undefined ? kafka : { ...kafka, prefix } }),
    ...{ creds, stopped },
  };
}

/** Says that the services of the other mode run too, in case --zookeeper was forgotten. */
export function sayOthers({ data, flags, terminal }: Context): void {
  const zookeeper = flags.has("zookeeper");
  if (!findServices({ dataDir: zookeeper ? dirname(data) : join(data, "zookeeper") })) return;
  const [which, remedy] = zookeeper ? ["without", "remove"] : ["with", "add"];
  terminal.say(
    `Note: services ${which} ZooKeeper are also running, with separate data; ${remedy} --zookeeper to use them`,
  );
}

/** Refuses a lake of another cluster, prefix or database before anything is posted. */
export async function checkLake(context: Context, connections: Connections): Promise<void> {
  const { lake, waitMs, signal, terminal } = context;
  const identity = await readIdentity(lake);
  if (!identity) return;
  const { kafka } = connections;
  const onWait = (text: string) => terminal.notice({ fact: "waited", text });
  const connecting = () => connectReader(kafka);
  await using reader = await retry(connecting, { waitMs, signal, isTransient: isTransientKafka, onWait });
  const database = await databaseOf(connections, context);
  checkIdentity(lake, identity, { cluster: reader.clusterId, prefix: kafka.prefix, ...database });
}

/** The id of the database, to refuse the lake of another one; none if the database is unavailable. */
export async function databaseOf(
  { mysql, services }: Connections,
  { waitMs }: Pick<Context, "waitMs">,
): Promise<{ database?: string }> {
  if (!mysql || (services && !services.mysql)) return {};
  const db = await connectMysql(mysql, { waitMs }).catch((error: unknown) => {
    if (isTransientMysql(error)) return undefined;
    throw error;
  });
  if (!db) return {};
  try {
    return { database: await databaseId(db, mysql) };
  } finally {
    db.destroy();
  }
}
