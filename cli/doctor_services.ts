/**
 * The checks of MySQL, Kafka, the lake and the tools around them.
 *
 * @module
 */

import { existsSync } from "node:fs";
import { canFollow, cascades } from "../db_conn/log_checks.ts";
import { ask, type Database } from "../db_conn/query.ts";
import { connectMysql, databaseId, inspectTable, isLocal, type MysqlSettings } from "../db_conn.ts";
import { count } from "../io/text.ts";
import { tableNames, tables } from "../io.ts";
import { connectReader, openProducer } from "../kafka/client.ts";
import { type KafkaSettings, topicOf } from "../kafka/settings.ts";
import { inspectTopics, listOffsets, openTransaction } from "../kafka/topics.ts";
import { lakeState } from "../lake/ledger.ts";
import { checkIdentity, readIdentity } from "../lake/owner.ts";
import { sqlHash } from "../lake/sql_files.ts";
import { outputOf } from "../local/processes.ts";
import type { Context, FoundServices } from "./connect.ts";
import type { Check, Finding } from "./finding.ts";

/** How long a service may take to answer, ms. */
const waitMs = 5_000;

/** Returns whether it could be reached. */
export async function checkMysql(settings: MysqlSettings, check: Check): Promise<boolean> {
  let db: Database | undefined;
  await check("MySQL", async () => {
    db = await connectMysql(settings, { waitMs });
    const [[version] = []] = await ask(db, "SELECT VERSION()");
    const [[, cipher] = []] = await ask(db, "SHOW STATUS LIKE 'Ssl_cipher'");
    const text = `${version} at ${settings.host}:${settings.port}, ${cipher ? "with" : "without"} TLS`;
    if (cipher && settings.ca === undefined && !isLocal(settings.host)) {
      return { state: "warned", text, remedy: "set SSL_CA, so that its certificate is checked" };
    }
    if (cipher || isLocal(settings.host)) return { state: "ok", text };
    return { state: "warned", text, remedy: "let the server offer TLS: the password and the rows cross the network" };
  });
  const connection = db;
  if (!connection) return false;
  try {
    for (const table of tableNames) {
      await check(tables[table].source, async () => {
        const { keys } = await inspectTable(connection, settings.database, table);
        const range = keys ? `keys ${keys.least} to ${keys.greatest}` : "no rows";
        const why = await canFollow(connection, table);
        if (why)
          return {
            state: "warned",
            text: `${range}; ${why}`,
            remedy: "without it post sees only new rows with keys above the last one",
          };
        const found = (await cascades(connection, table)).map(({ constraint }) => constraint);
        if (found.length === 0) return { state: "ok", text: `${range}; changes and deletes can be followed` };
        return {
          state: "warned",
          text: `${range}; the log does not tell what ${found.join(", ")} changes`,
          remedy: "post --full now and then",
        };
      });
    }
    return true;
  } finally {
    connection.destroy();
  }
}

/** The API of Kafka that got another version with 4.3 and did not before or in 4.4: DescribeLogDirs. */
const [changedApi, versionOf43] = [35, 5];

/** Whether a broker has KAFKA-20734, by the versions of the APIs that it has. Kafka does not tell its release. */
export const leavesTransactionsOpen = (versions: Record<number, { maxVersion: number }> | null): boolean =>
  (versions?.[changedApi]?.maxVersion ?? 0) >= versionOf43;

/** Returns whether it could be reached. */
export async function checkKafka(settings: KafkaSettings, check: Check): Promise<boolean> {
  let isThere = false;
  await check("Kafka", async () => {
    await using reader = await connectReader(settings);
    isThere = true;
    const secure = [settings.ssl && "TLS", settings.sasl && `SASL ${settings.sasl.mechanism}`]
      .filter(Boolean)
      .join(" and ");
    const text = `at ${settings.brokers.join(", ")}${secure && ` with ${secure}`}, cluster ${reader.clusterId}`;
    const { versions } = await reader.cluster.brokerPool.findConnectedBroker();
    if (!leavesTransactionsOpen(versions)) return { state: "ok", text };
    return {
      state: "warned",
      text: `${text}; version 4.3 or newer`,
      remedy: "such a broker that is killed may leave a transaction open (KAFKA-20734): prefer Kafka 4.2",
    };
  });
  if (!isThere) return false;
  await check("topics", async () => {
    const { missing, warnings } = await inspectTopics(settings);
    if (warnings.length > 0) return warnings.map((text) => ({ state: "warned", text }) as const);
    if (missing.length > 0) return { state: "ok", text: `${missing.join(", ")} will be made by post` };
    return {
      state: "ok",
      text: `${tableNames.map((table) => topicOf(settings, table)).join(", ")} keep all messages, with the broker's times`,
    };
  });
  await check("transactions", async () => {
    // An id of its own: that of a table would end the post that runs.
    const producer = await openProducer(settings, { transactionalId: `${settings.prefix}.doctor` });
    await producer.disconnect();
    return { state: "ok", text: "can be begun and given up" };
  });
  await check("open transactions", async () => {
    await using reader = await connectReader(settings);
    const open: string[] = [];
    for (const table of tableNames) {
      const topic = topicOf(settings, table);
      const ranges = (await listOffsets(reader, topic)) ?? [];
      const held = ranges.filter(({ lastStable, logEnd }) => lastStable < logEnd);
      open.push(...held.map((range) => openTransaction(topic, range)));
    }
    if (open.length === 0) return { state: "ok", text: "none hold back the readers of the topics" };
    const remedy = "where nobody posts now, post says how to end one that a killed broker left (KAFKA-20734)";
    return { state: "warned", text: open.join("; "), remedy };
  });
  return true;
}

/** The lake, as far as the services can be asked that it belongs to. */
export async function checkLake(
  { lake }: Context,
  settings: Pick<FoundServices, "mysql" | "kafka">,
  check: Check,
): Promise<void> {
  await check("lake", async () => {
    const identity = existsSync(lake) ? await readIdentity(lake) : undefined;
    if (!identity) return { state: "ok", text: `none yet in "${lake}"` };
    if (settings.kafka) {
      await using reader = await connectReader(settings.kafka);
      checkIdentity(lake, identity, { cluster: reader.clusterId, prefix: settings.kafka.prefix });
    }
    if (settings.mysql) {
      const db = await connectMysql(settings.mysql, { waitMs });
      try {
        checkIdentity(lake, identity, { database: await databaseId(db, settings.mysql) });
      } finally {
        db.destroy();
      }
    }
    const states = Object.values(await lakeState(lake));
    const wrong = states.filter((state) => !state.isBalanced).map(({ ledger }) => ledger.table);
    if (wrong.length > 0) {
      const remedy = "where no clean runs now: clean --rebuild makes silver and rejects again from bronze";
      return { state: "failed", text: `the ledger of ${wrong.join(", ")} is not balanced`, remedy };
    }
    const rows = states.reduce((sum, { ledger }) => sum + ledger.clean, 0);
    const text = `${count(rows)} clean rows in "${lake}", the ledger is balanced`;
    if (identity.sql === sqlHash()) return { state: "ok", text };
    return { state: "warned", text: `${text}; the cleaning SQL was edited since`, remedy: "clean --rebuild" };
  });
}

/** Spark and Airflow are only for deploy/. */
export async function checkTools(check: Check): Promise<void> {
  for (const [name, command, args] of [
    ["Spark", "spark-submit", ["--version"]],
    ["Airflow", "airflow", ["version"]],
  ] as const) {
    await check(name, async (): Promise<Omit<Finding, "check">> => {
      const output = await outputOf(command, [...args], 30_000);
      const version = /\d+\.\d+\.\d+/.exec(output ?? "")?.[0];
      return version
        ? { state: "ok", text: version }
        : { state: "skipped", text: "not installed; only deploy/ uses it" };
    });
  }
}
