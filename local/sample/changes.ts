/**
 * Changes the sample posts as users would: edits profiles and pins, inserts and deletes posts.
 *
 * It works only in a database that this program created. The changes are in the binary log, the sample posts are not.
 *
 * @module
 */

import { type Row, type Table, tables } from "../../io.ts";
import { UsageError } from "../../runtime/errors.ts";
import type { Notice } from "../../runtime/notice.ts";
import { pauses, steadily } from "../../runtime/pace.ts";
import { Random } from "../../runtime/random.ts";
import { type RetryOptions, retry } from "../../runtime/retry.ts";
import { ownServers } from "../mariadb.ts";
import { isSample } from "./load.ts";
import { type SampleTable, sampleRow, sampleSize, sampleTables } from "./rows.ts";

/** A connection to the database. */
export interface Session {
  /** The rows, each column as MySQL's text, or the number of affected rows. */
  query(sql: string, values?: unknown[]): Promise<Row[] | { affectedRows: number }>;
  destroy(): void;
}

/** A change of a post or of a row. */
export interface Change {
  kind: "inserted" | "updated" | "deleted";
  key: string;
  /** Number of rows by table. */
  rows: Partial<Record<SampleTable, number>>;
  /** For people, such as `user 4711 updated (age 31 -> 32)`. */
  text: string;
}

/** A fact from {@link changeRows}: changes that were committed together, or a notice. */
export type ChangeFact = { fact: "changed"; changes: Change[] } | Notice;

/** Settings of {@link changeRows}. */
interface ChangeOptions {
  connect: () => Promise<Session>;
  /** Determines the changes: the same seed and rows give the same changes, if nothing else writes. */
  seed: number;
  /** Changes to make. Default: until stopped. */
  limit?: number;
  /** Changes per second, approximately. Default: one at a time, with a pause of 0 to 1 s after each. */
  rate?: number;
  retrying: Pick<RetryOptions, "waitMs" | "signal" | "isTransient">;
  /** Awaited, so that a slow listener slows the changes down. */
  onFact: (fact: ChangeFact) => void | Promise<void>;
}

/** Numbers of changes and of changed rows by table. */
export interface ChangeResult extends Record<Change["kind"], Record<SampleTable, number>> {
  seed: number;
  changes: number;
}

/** Kinds of changes and their shares. New values come from the sample, so some of them are dirty. */
const habits: ({ share: number; table: SampleTable; column: string } | { share: number; post: "new" | "gone" })[] = [
  { share: 0.25, table: "user", column: "age" },
  { share: 0.06, table: "user", column: "first_name" },
  { share: 0.06, table: "user", column: "last_name" },
  { share: 0.12, table: "pin", column: "title" },
  { share: 0.08, table: "pin", column: "description" },
  { share: 0.15, table: "pin", column: "follower_count" },
  { share: 0.03, table: "geo", column: "country" },
  { share: 0.15, post: "new" },
  { share: 0.1, post: "gone" },
];
/** Share of transactions with several changes, and their largest number of changes. */
const severalShare = 0.25;
const most = 5;
/** Share of new posts that reuse a key that was deleted here, and how many such keys are remembered. */
const againShare = 0.3;
const keysKept = 1_000;
const oldest = 100;

/**
 * Changes rows until `limit` is reached or it is stopped; both end without an error.
 *
 * @throws `UsageError` if this program did not create the database; `Error` if the database is unavailable for longer than
 * `waitMs`, or if it is unknown whether the last changes were committed
 */
export async function changeRows(options: ChangeOptions): Promise<ChangeResult> {
  const { connect, seed, limit = Number.POSITIVE_INFINITY, rate, retrying, onFact } = options;
  const { signal } = retrying;
  const none = () => Object.fromEntries(sampleTables.map((table) => [table, 0])) as Record<SampleTable, number>;
  const result: ChangeResult = { seed, changes: 0, inserted: none(), updated: none(), deleted: none() };
  const random = new Random(seed);
  const breaks = new Random(seed + 1);
  const pace = rate === undefined ? pauses(() => breaks.real(), signal) : steadily(rate, signal);
  let free: string[] = [];
  let session: Session | undefined;
  const close = () => {
    session?.destroy();
    session = undefined;
  };
  const prepare = async (choice: number, size: number) => {
    try {
      session ??= await open(connect);
      return await change(session, { random: new Random(choice), size, free: [...free] });
    } catch (error) {
      // Closing also rolls back. After a duplicate key, another program has inserted one of the remembered keys.
      close();
      if (isTaken(error)) free = [];
      throw error;
    }
  };
  const isTransient = (error: unknown) => isTaken(error) || retrying.isTransient(error);
  const onWait = (text: string) => void onFact({ fact: "waited", text });
  try {
    while (result.changes < limit) {
      const size = Math.min(random.chance(severalShare) ? 2 + random.below(most - 1) : 1, limit - result.changes);
      for (let due = 0; due < size; ) due += await pace(size - due);
      const choice = random.next();
      const changes = await retry(() => prepare(choice, size), { ...retrying, isTransient, onWait });
      await session?.query("COMMIT").catch((error: Error) => {
        throw new UnknownOutcome(changes, error);
      });
      for (const { kind, key, rows } of changes) {
        for (const table of sampleTables) result[kind][table] += rows[table] ?? 0;
        if (kind === "inserted") free = free.filter((other) => other !== key);
        if (kind === "deleted") free = [...free, key].slice(-keysKept);
      }
      result.changes += changes.length;
      await onFact({ fact: "changed", changes });
    }
  } catch (error) {
    if (!signal.aborted || error instanceof UnknownOutcome) throw error;
  } finally {
    close();
  }
  return result;
}

/** Must not be retried, which could make the changes twice. */
class UnknownOutcome extends Error {
  constructor(changes: Change[], cause: Error) {
    const what = changes.map(({ text }) => text).join(", ");
    super(`Cannot know whether these changes were committed: ${what}. ${cause.message}`);
  }
}

const isTaken = (error: unknown) => (error as NodeJS.ErrnoException).code === "ER_DUP_ENTRY";

/** Connects, and checks that this program created the server and the tables. */
async function open(connect: () => Promise<Session>): Promise<Session> {
  const session = await connect();
  try {
    const [[, server] = []] = await rows(session, "SHOW GLOBAL VARIABLES LIKE 'report_host'");
    const comments = await rows(
      session,
      "SELECT TABLE_COMMENT FROM information_schema.TABLES WHERE TABLE_SCHEMA = DATABASE() AND TABLE_NAME IN (?)",
      [sampleTables.map((table) => tables[table].source)],
    );
    const samples = comments.filter(([comment]) => isSample(comment ?? ""));
    if (server?.startsWith(ownServers) && samples.length === sampleTables.length) return session;
    throw new UsageError(
      "Cannot change rows in a database that this program did not create: --changes works only on the private server, on sample tables whose comments are unchanged",
    );
  } catch (error) {
    session.destroy();
    throw error;
  }
}

interface Choice {
  random: Random;
  /** Changes to make. */
  size: number;
  /** Keys that were deleted here and may be reused. */
  free: string[];
}

/** Begins a transaction and makes changes; the caller commits. */
async function change(session: Session, { random, size, free }: Choice): Promise<Change[]> {
  await session.query("START TRANSACTION");
  const changes: Change[] = [];
  while (changes.length < size) {
    let left = random.real();
    const habit = habits.find(({ share }) => {
      left -= share;
      return left < 0;
    }) ?? { share: 0, post: "new" };
    const done =
      "column" in habit
        ? await edit(session, random, habit)
        : habit.post === "gone"
          ? await remove(session, random)
          : undefined;
    // If there is no row to change, insert one.
    changes.push(done ?? (await insert(session, random, free)));
  }
  return changes;
}

async function edit(
  session: Session,
  random: Random,
  { table, column }: { table: SampleTable; column: string },
): Promise<Change | undefined> {
  const [key, old = null] = (await pick(session, random, { table, column })) ?? [];
  if (key == null) return undefined;
  let value = Number(old) < oldest ? String(Number(old) + 1) : "20";
  if (column !== "age" || old === null) {
    do value = sampleValue(table, column, { random, key }) ?? "";
    while (value === old);
  }
  const sql = `UPDATE ${tables[table].source} SET \`${column}\` = ? WHERE \`${tables[table].key}\` = ?`;
  const changed = await affected(session, sql, [value, key]);
  const text = `${table} ${key} updated (${column} ${shown(column, old)} -> ${shown(column, value)})`;
  return { kind: "updated", key, rows: { [table]: changed }, text };
}

/** Deletes a post from all tables. */
async function remove(session: Session, random: Random): Promise<Change | undefined> {
  const [key] = (await pick(session, random, { table: "pin", column: tables.pin.key })) ?? [];
  if (key == null) return undefined;
  const rows: Change["rows"] = {};
  for (const table of sampleTables) {
    rows[table] = await affected(session, `DELETE FROM ${tables[table].source} WHERE \`${tables[table].key}\` = ?`, [
      key,
    ]);
  }
  return { kind: "deleted", key, rows, text: `post ${key} deleted` };
}

/** Inserts a post: above the greatest key of all tables, or at a deleted key. */
async function insert(session: Session, random: Random, free: string[]): Promise<Change> {
  const greatest = sampleTables.map(
    (table) => `COALESCE((SELECT MAX(\`${tables[table].key}\`) FROM ${tables[table].source}), -1)`,
  );
  const [[next] = []] = await rows(session, `SELECT GREATEST(${greatest.join(", ")}) + 1`);
  const again = free.length > 0 && random.chance(againShare);
  const key = again ? (free.splice(random.below(free.length), 1)[0] as string) : (next as string);
  const like = sampleIndex(random, key);
  const inserted: Change["rows"] = {};
  for (const table of sampleTables) {
    const columns = Object.keys(tables[table].columns).map((name) => `\`${name}\``);
    const values = [key, ...sampleRow(table, like).slice(1)];
    const sql = `INSERT INTO ${tables[table].source} (${columns.join(", ")}) VALUES (?)`;
    inserted[table] = await affected(session, sql, [values]);
  }
  return { kind: "inserted", key, rows: inserted, text: `post ${key} inserted` };
}

/** Locks a random row. @returns its key and the value of a column */
async function pick(
  session: Session,
  random: Random,
  { table, column }: { table: SampleTable; column: string },
): Promise<Row | undefined> {
  const { source, key } = tables[table];
  const [[least, greatest] = []] = await rows(session, `SELECT MIN(\`${key}\`), MAX(\`${key}\`) FROM ${source}`);
  if (least == null) return undefined;
  const from = Number(least) + random.below(Number(greatest) - Number(least) + 1);
  const columns = `\`${key}\`, \`${column}\``;
  const where = `\`${key}\` >= ? ORDER BY \`${key}\` LIMIT 1 FOR UPDATE`;
  return (await rows(session, `SELECT ${columns} FROM ${source} WHERE ${where}`, [from]))[0];
}

/** The index of a sample row with the category of a key, beyond the rows of any database. */
const sampleIndex = (random: Random, key: string) =>
  (Number(key) % sampleSize) + sampleSize * (1_000 + random.below(10_000));

function sampleValue(table: SampleTable, column: string, { random, key }: { random: Random; key: string }) {
  const at = Object.keys(tables[table as Table].columns).indexOf(column);
  return sampleRow(table, sampleIndex(random, key))[at];
}

const rows = async (session: Session, sql: string, values?: unknown[]) => (await session.query(sql, values)) as Row[];

const affected = async (session: Session, sql: string, values: unknown[]) =>
  ((await session.query(sql, values)) as { affectedRows: number }).affectedRows;

/** A value, shortened for one line. */
function shown(column: string, value: string | null): string {
  if (value === null) return "NULL";
  const text = [...value];
  return column === "age" ? value : `"${text.length > 30 ? `${text.slice(0, 29).join("")}…` : value}"`;
}
