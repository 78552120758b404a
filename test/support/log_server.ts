/**
 * A private database server with a binary log for a test: MariaDB, or MySQL if MARIADB_HOME points to one.
 *
 * @module
 */

import type { Connection } from "mysql2/promise";
import type { Database } from "../../db_conn/query.ts";
import { connectMysql, type MysqlSettings } from "../../db_conn.ts";
import { spawnGuarded, type Tools } from "../../local/processes.ts";
import { findPrograms } from "../../local/programs.ts";
import { openDatabase } from "./bare_services.ts";
import { temporaryFolder } from "./support.ts";

/** The server, and connections to it. */
export interface LogServer {
  name: "MariaDB" | "MySQL";
  mysql: MysqlSettings;
  /** The database's root, which may set global variables. */
  root: Connection;
  /** The program's account. */
  reader: Database;
  close: () => Promise<void>;
}

/** Starts a server. `flags` are for the server, `earlier` for a previous start that created the data folder. */
export async function openLogServer(flags: string[] = [], earlier?: string[]): Promise<LogServer> {
  const folder = await temporaryFolder();
  const tools: Tools = { say: () => {}, spawn: spawnGuarded, signal: new AbortController().signal };
  const { mysql: program } = await findPrograms(["mysql"], tools);
  if (!program) throw new Error("Found no MariaDB or MySQL to test with");
  if (earlier) await (await openDatabase(program, folder.path, tools, earlier)).database.stop("SIGTERM");
  const { database, mysql, root: openRoot } = await openDatabase(program, folder.path, tools, flags);
  const root = await openRoot();
  await root.query(`USE ${mysql.database}`);
  const reader = await connectMysql(mysql);
  const close = async () => {
    root.destroy();
    reader.destroy();
    await database.stop("SIGTERM");
    await folder.remove();
  };
  return { name: program.name as LogServer["name"], mysql, root, reader, close };
}
