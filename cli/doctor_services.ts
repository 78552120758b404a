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
import { connectReader } from "../kafka/client.ts";
import { openProducer } from "../kafka/producer.ts";
import { type KafkaSettings, topicOf } from "../kafka/settings.ts";
import { inspectTopics, listOffsets, openTransaction } from "../kafka/topics.ts";
import { lakeState } from "../lake/ledger.ts";
import { checkIdentity, readIdentity } from "../lake/owner.ts";
import { sqlHash } from "../lake/sql_files.ts";
import { outputOf } from "../local/processes.ts";
import type { Context, FoundServices } from "./connect.ts";
import type { Check, Finding } from "./finding.ts";

/** Timeout for an answer of a service, ms. */
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
      return { state: "warned", text, remedy: "set SSL_CA so that its certificate is checked" };
    }
    if (cipher || isLocal(settings.host)) return { state: "ok", text };
    return { state: "warned", text, remedy: "enable TLS on the server: the password and the rows cross the network" };
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
            remedy: "until then post sees only new rows with keys above the last one",
          };
        const found = (await cascades(connection, table)).map(({ constraint }) => constraint);
        if (found.length === 0) return { state: "ok", text: `${range}; changes and deletes can be followed` };
        return {
          state: "warned",
          text: `${range}; the binary log does not contain the changes that ${found.join(", ")} cascades`,
          remedy: "run post --full from time to time",
        };
      });
    }
    return true;
  } finally {
    connection.destroy();
  }
}

/** DescribeLogDirs: 4 is its last version in Kafka 4.2, 5 in 4.3 and 4.4. */
const [changedApi, versionOf43] = [35, 5];

/** Whether a broker has KAFKA-20734, judging by its API versions: it does not report its release. */
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
    if (missing.length > 0) return { state: "ok", text: `post will create ${missing.join(", ")}` };
    return {
      state: "ok",
      text: `${tableNames.map((table) => topicOf(settings, table)).join(", ")} keep all messages and use the broker's timestamps`,
    };
  });
  await check("transactions", async () => {
    // A separate id: a table's id would fence a running post.
    const producer = await openProducer(settings, { transactionalId: `${settings.prefix}.doctor` });
    await producer.disconnect();
    return { state: "ok", text: "a transactional producer can be opened" };
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
    if (open.length === 0) return { state: "ok", text: "none hide messages of the topics" };
    const remedy =
      "if no post is running, a killed broker may have left one (KAFKA-20734): run post, which says how to abort it";
    return { state: "warned", text: open.join("; "), remedy };
  });
  return true;
}

/** Checks the lake, and that it belongs to the services that can be reached. */
export async function checkLake(
  { lake }: Context,
  settings: Pick<FoundServices, "mysql" | "kafka">,
  check: Check,
): Promise<void> {
  await check("lake", async () => {
    const identity = existsSync(lake) ? await readIdentity(lake) : undefined;
    if (!identity) return { state: "ok", text: `none in "${lake}" yet` };
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
      const remedy = "if no clean is running: clean --rebuild rebuilds silver and rejects from bronze";
      return { state: "failed", text: `the ledger of ${wrong.join(", ")} is not balanced`, remedy };
    }
    const rows = states.reduce((sum, { ledger }) => sum + ledger.clean, 0);
    const text = `${count(rows)} clean rows in "${lake}", the ledger is balanced`;
    if (identity.sql === sqlHash()) return { state: "ok", text };
    return { state: "warned", text: `${text}; the cleaning SQL has been edited since`, remedy: "run clean --rebuild" };
  });
}

/** Checks for Spark and Airflow, which only deploy/ needs. */
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
        : { state: "skipped", text: "not installed; only deploy/ needs it" };
    });
  }
}
