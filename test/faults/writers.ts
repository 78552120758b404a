/**
 * Changes the tables of a round while faults are injected, and records the history of each row.
 *
 * A change gives its row a new version, drawn while the transaction holds the row's lock. The recorded order of a row's
 * states is therefore the database's order, without states that were rolled back.
 *
 * @module
 */

import { setTimeout as sleep } from "node:timers/promises";
import mysql, { type Connection, type ResultSetHeader } from "mysql2/promise";
import { type Table, tableNames, tables } from "../../io.ts";
import { Random } from "../../runtime/random.ts";
import { baseRows } from "../support/bare_services.ts";
import type { Sandbox, Services } from "./sandbox.ts";

/** The column of each table that stores a row's version. */
export const versionColumn: Record<Table, string> = { pin: "title", geo: "country", user: "first_name" };

/** A state of a row: the text of its version column, or null if it was deleted. */
interface State {
  text: string | null;
}

/** By table and key, oldest first. */
export type History = Record<Table, Map<string, State[]>>;

/** Running writers. */
export interface Writers {
  history: History;
  /** Number of rows written so far. */
  writes(): number;
  /** Prevents new transactions until `resume`. */
  pause(): void;
  resume(): void;
  /** Changes a whole table: with a TRUNCATE, deletes of every other row, or one update of all rows. */
  sweep(table: Table, how: "truncate" | "delete" | "update"): Promise<void>;
  /** Resolves when all writers have ended. */
  stop(): Promise<void>;
}

/** Options of the writers. */
interface WritersOptions {
  seed: number;
  /** The longest pause between two transactions of a writer, ms. */
  pauseMs: number;
}

/** Changes of a transaction, by table and key; it may still be rolled back. */
type Changes = Map<string, { table: Table; key: string; state: State }>;

/**
 * Starts three writers on a round's tables, which continue when the database is back after an outage: single updates,
 * deletes, new rows above the last key and in gaps, key changes, updates of 2,000 rows, large transactions, rollbacks.
 */
export async function startWriters(
  services: Pick<Services, "base">,
  sandbox: Pick<Sandbox, "db">,
  { seed, pauseMs }: WritersOptions,
): Promise<Writers> {
  const dice = new Random(seed);
  const { database: base } = await services.base();
  const connect = () => mysql.createConnection({ ...sandbox.db, charset: "utf8mb4" }).then(quiet);
  const history = await firstStates(await connect());
  const greatest = Object.fromEntries(
    tableNames.map((table) => [table, Math.max(...[...history[table].keys()].map(Number))]),
  ) as Record<Table, number>;
  let [version, written, going, paused] = [0, 0, true, false];
  const draw = () => `v${++version}`;

  const actions = changesOf({ history, draw, dice, base, greatest });
  const work = async () => {
    let db: Connection | undefined;
    while (going) {
      const done: Changes = new Map();
      let committing = false;
      try {
        db ??= await connect();
        if (!paused) {
          await db.query("START TRANSACTION");
          for (let i = dice.chance(0.2) ? 2 + dice.below(20) : 1; i > 0; i--) await actions.any(db, done);
          committing = !dice.chance(0.1);
          await db.query(committing ? "COMMIT" : "ROLLBACK");
          if (committing) written += done.size;
          else actions.undo(done);
        }
      } catch (error) {
        // A COMMIT without a response may have succeeded, so its states stay among the possible ones.
        if (!committing) actions.undo(done);
        const isRefused = ["ER_LOCK_DEADLOCK", "ER_LOCK_WAIT_TIMEOUT"].includes(
          String((error as { code?: unknown }).code),
        );
        if (isRefused) await db?.query("ROLLBACK").catch(() => {});
        else if (!isAway(error)) throw error;
        else {
          db?.destroy();
          db = undefined;
          await sleep(50);
        }
      }
      await sleep(paused ? 20 : dice.real() * pauseMs);
    }
    db?.destroy();
  };
  const works = Array.from({ length: 3 }, work);
  for (const one of works) one.catch(() => {}); // reported by stop()
  return {
    history,
    writes: () => written,
    pause() {
      paused = true;
    },
    resume() {
      paused = false;
    },
    async sweep(table, how) {
      const db = await connect();
      try {
        written += await actions.sweep(db, table, how);
      } finally {
        db.destroy();
      }
    },
    async stop() {
      going = false;
      await Promise.all(works);
    },
  };
}

/** The kinds of changes; each records its result. */
function changesOf(of: {
  history: History;
  draw: () => string;
  dice: Random;
  base: string;
  greatest: Record<Table, number>;
}) {
  const { history, draw, dice, base, greatest } = of;
  const note = (done: Changes, table: Table, key: number | string, text: string | null) => {
    const same = done.get(`${table} ${key}`);
    if (same) {
      same.state.text = text; // only the last state of a transaction is ever visible
      return;
    }
    const state: State = { text };
    const states = history[table].get(String(key)) ?? [];
    history[table].set(String(key), [...states, state]);
    done.set(`${table} ${key}`, { table, key: String(key), state });
  };
  const undo = (done: Changes) => {
    for (const { table, key, state } of done.values()) {
      history[table].set(key, history[table].get(key)?.filter((other) => other !== state) ?? []);
    }
  };
  const lock = async (db: Connection, table: Table, rows: number): Promise<number[]> => {
    const { source, key } = tables[table];
    const sql = `SELECT \`${key}\` FROM ${source} WHERE \`${key}\` >= ? ORDER BY \`${key}\` LIMIT ? FOR UPDATE`;
    const [found] = await db.query({ sql, values: [dice.below(greatest[table]), rows], rowsAsArray: true });
    return (found as number[][]).map(([id]) => id as number);
  };
  const setVersion = async (db: Connection, table: Table, keys: number[], done: Changes) => {
    if (keys.length === 0) return;
    const { source, key } = tables[table];
    const text = draw();
    await db.query(`UPDATE ${source} SET ${versionColumn[table]} = ? WHERE \`${key}\` IN (?)`, [text, keys]);
    for (const id of keys) note(done, table, id, text);
  };
  const remove = async (db: Connection, table: Table, keys: number[], done: Changes) => {
    if (keys.length === 0) return;
    const { source, key } = tables[table];
    await db.query(`DELETE FROM ${source} WHERE \`${key}\` IN (?)`, [keys]);
    for (const id of keys) note(done, table, id, null);
  };
  /** A key above all others, or any key, which may exist. */
  const otherKey = (table: Table): number => {
    if (dice.chance(0.5)) return 1 + dice.below(greatest[table]);
    greatest[table] += 1 + dice.below(3);
    return greatest[table];
  };
  /** Runs a statement whose key may exist. @returns whether it changed anything */
  const mayFind = async (db: Connection, sql: string, values: unknown[]): Promise<boolean> => {
    try {
      const [result] = await db.query(sql, values);
      return (result as ResultSetHeader).affectedRows > 0;
    } catch (error) {
      if ((error as { code?: unknown }).code !== "ER_DUP_ENTRY") throw error;
      return false;
    }
  };
  const insert = async (db: Connection, table: Table, done: Changes) => {
    const { source, key, columns } = tables[table];
    const names = Object.keys(columns).map((name) => `\`${name}\``);
    const id = otherKey(table);
    const sql = `INSERT INTO ${source} (${names}) SELECT ?, ${names.slice(1)} FROM ${base}.${source} WHERE \`${key}\` = ?`;
    if (await mayFind(db, sql, [id, dice.below(baseRows)])) await setVersion(db, table, [id], done);
  };
  const move = async (db: Connection, table: Table, done: Changes) => {
    const { source, key } = tables[table];
    const [from] = await lock(db, table, 1);
    const to = otherKey(table);
    if (from === undefined || from === to) return;
    if (!(await mayFind(db, `UPDATE ${source} SET \`${key}\` = ? WHERE \`${key}\` = ?`, [to, from]))) return;
    note(done, table, from, null);
    await setVersion(db, table, [to], done);
  };
  return {
    undo,
    async any(db: Connection, done: Changes): Promise<void> {
      const table = dice.pick(tableNames);
      const which = dice.real();
      if (which < 0.4) await setVersion(db, table, await lock(db, table, 1), done);
      else if (which < 0.58) await remove(db, table, await lock(db, table, 1), done);
      else if (which < 0.86) await insert(db, table, done);
      else if (which < 0.98) await move(db, table, done);
      else if (which < 0.993) await remove(db, table, await lock(db, table, dice.below(100)), done);
      else await setVersion(db, table, await lock(db, table, 2_000), done);
    },
    async sweep(db: Connection, table: Table, how: "truncate" | "delete" | "update"): Promise<number> {
      const { source, key } = tables[table];
      const done: Changes = new Map();
      await db.query(`LOCK TABLES ${source} WRITE`);
      if (how === "truncate") {
        await db.query(`TRUNCATE ${source}`);
        for (const [id, states] of history[table]) if (states.at(-1)?.text !== null) note(done, table, id, null);
      } else {
        const sql = `SELECT \`${key}\` FROM ${source} WHERE \`${key}\` % ? = 0`;
        const [found] = await db.query({ sql, values: [how === "delete" ? 2 : 1], rowsAsArray: true });
        const keys = (found as number[][]).map(([id]) => id as number);
        await (how === "delete" ? remove : setVersion)(db, table, keys, done);
      }
      await db.query("UNLOCK TABLES");
      return done.size;
    },
  };
}

/** Every row before the first change. */
async function firstStates(db: Connection): Promise<History> {
  const states = async (table: Table) => {
    const { source, key } = tables[table];
    const sql = `SELECT \`${key}\`, ${versionColumn[table]} FROM ${source}`;
    const [rows] = await db.query({ sql, rowsAsArray: true });
    return new Map((rows as [number, string | null][]).map(([id, text]) => [String(id), [{ text: String(text) }]]));
  };
  try {
    return { pin: await states("pin"), geo: await states("geo"), user: await states("user") };
  } finally {
    db.destroy();
  }
}

/** Ignores the loss of an idle connection. */
function quiet(db: Connection): Connection {
  db.on("error", () => {});
  return db;
}

/** Whether an error means that the database is unavailable. */
const isAway = (error: unknown): boolean => {
  const { code, message, fatal } = error as { code?: string; message?: string; fatal?: boolean };
  return (
    fatal === true ||
    /closed state/.test(message ?? "") ||
    /^(ECONN|EPIPE|PROTOCOL_|ER_SERVER_SHUTDOWN)/.test(code ?? "")
  );
};
