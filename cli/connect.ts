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
import { UsageError } from "../runtime/errors.ts";
import { retry } from "../runtime/retry.ts";
import type { Arguments } from "./arguments.ts";
import { type Credentials, findCredentials, ownKafka } from "./credentials.ts";
import type { Command } from "./options.ts";
import type { Terminal } from "./terminal.ts";

/** What a command works with. */
export interface Context extends Arguments {
  signal: AbortSignal;
  terminal: Terminal;
  /** When the command began, ms. */
  started: number;
}

/** The services that a command works with. */
export interface Needs {
  mysql: boolean;
  kafka: boolean;
}

/** Where the services are, once they are needed. */
export interface Connections extends AsyncDisposable {
  mysql: MysqlSettings;
  kafka: KafkaSettings;
  services: Services | undefined;
}

/** Commands that want rows: they give the embedded database its sample. */
const fillsDatabase: Command[] = ["run", "up", "post", "emulate", "explore"];

/** Finds or starts what a command needs, says which it uses, and gives the embedded database its sample. */
export async function connect(context: Context, needs: Needs): Promise<Connections> {
  const { data, prefix, signal, terminal, rows, waitMs } = context;
  const creds = await findCredentials(context.creds);
  const from = creds?.from ?? "";
  for (const warning of creds?.warnings ?? []) terminal.warn(warning);
  if (rows !== undefined && creds?.mysql) {
    throw new UsageError(`--rows makes sample data for the program's own database only, and "${from}" names another`);
  }
  const zookeeper = context.flags.has("zookeeper");
  if (zookeeper && creds?.kafka) {
    throw new UsageError(
      `--zookeeper starts the program's own Kafka, and "${from}" names another: leave out one of them`,
    );
  }
  const own = { mysql: needs.mysql && !creds?.mysql, kafka: needs.kafka && !creds?.kafka };
  const say = (text: string) => terminal.say(text);
  if (own.mysql || own.kafka) sayOthers(context);
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
        terminal.say(`The database holds ${count(posts)} sample posts already: --rows ${rows} adds none`);
    }
    return { mysql, kafka, services, [Symbol.asyncDispose]: async () => services?.[Symbol.asyncDispose]() };
  } catch (error) {
    await services?.[Symbol.asyncDispose]();
    throw error;
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

/** Says that the services of the other mode run too: who forgot the flag would wonder where the rows are. */
export function sayOthers({ data, flags, terminal }: Context): void {
  const zookeeper = flags.has("zookeeper");
  if (!findServices({ dataDir: zookeeper ? dirname(data) : join(data, "zookeeper") })) return;
  const [those, way] = zookeeper ? ["without", "leave --zookeeper out"] : ["with", "say --zookeeper"];
  terminal.say(`The services ${those} ZooKeeper run too, with data of their own; to mean them, ${way}`);
}

/** Refuses the lake of another cluster, prefix or database before anything is posted for it. */
export async function checkLake(context: Context, connections: Connections): Promise<void> {
  const { lake, waitMs, signal, terminal } = context;
  const identity = await readIdentity(lake);
  if (!identity) return;
  const { kafka } = connections;
  const onWait = (text: string) => terminal.say(text);
  const connecting = () => connectReader(kafka);
  await using reader = await retry(connecting, { waitMs, signal, isTransient: isTransientKafka, onWait });
  const database = await databaseOf(connections, context);
  checkIdentity(lake, identity, { cluster: reader.clusterId, prefix: kafka.prefix, ...database });
}

/** The id of the database that the settings name, so that the lake of another one is refused; none when it is away. */
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
