/**
 * Brokers and databases that a test starts, stops and freezes.
 *
 * @module
 */

import { join } from "node:path";
import mysql, { type Connection } from "mysql2/promise";
import { keepClasses } from "../../local/broker.ts";
import { startMysql } from "../../local/mariadb.ts";
import { freePort, type Guarded, spawnGuarded, type Tools } from "../../local/processes.ts";
import { findPrograms, type KafkaProgram, type MysqlProgram } from "../../local/programs.ts";
import { loadSample } from "../../local/sample/load.ts";
import type { MysqlAddress } from "../../local/state.ts";

/** The programs, and the tools to start them in `folder`. */
export async function prepare(folder: string): Promise<{ tools: Tools; kafka: KafkaProgram; server: MysqlProgram }> {
  const tools: Tools = { say: () => {}, spawn: spawnGuarded, signal: new AbortController().signal };
  const { kafka, mysql: server } = await findPrograms(["mysql", "kafka"], tools);
  if (!kafka || !server) throw new Error("Found no Kafka or MariaDB to test with");
  await keepClasses(kafka, folder, tools);
  return { tools, kafka, server };
}

/** A service that can be killed, frozen and restarted. */
export interface Service {
  /** Kills or terminates it; resolves when it has ended. */
  stop(how: "SIGKILL" | "SIGTERM"): Promise<void>;
  start(): Promise<void>;
  freeze(): void;
  thaw(): void;
}

/** A private database. */
export interface DatabaseServices {
  folder: string;
  database: Service;
  mysql: MysqlAddress;
  /** Sample posts to copy from, created at the first use, because copying is faster than creating. */
  base(): Promise<MysqlAddress>;
  /** A connection of the database's root through the socket; needs the system's root. */
  root(): Promise<Connection>;
}

/** Starts a service for fault injection. */
export async function openService(begin: () => Promise<Guarded>): Promise<Service> {
  let process = await begin();
  const send = (signal: NodeJS.Signals) => globalThis.process.kill(process.id.pid, signal);
  return {
    async stop(how) {
      send(how);
      if (how === "SIGTERM") await process.stop();
      else await process.ended;
    },
    async start() {
      process = await begin();
    },
    freeze: () => send("SIGSTOP"),
    thaw: () => send("SIGCONT"),
  };
}

/** Starts a database in a folder. `flags` are for the server. */
export async function openDatabase(
  server: MysqlProgram,
  folder: string,
  tools: Tools,
  flags: string[] = [],
): Promise<DatabaseServices> {
  const port = await freePort();
  const address: MysqlAddress = {
    ...{ host: "127.0.0.1", port, user: "pipeline", password: "faults", database: "pinterest_faults" },
  };
  let based = false;
  return {
    ...{ folder, mysql: address },
    database: await openService(() => startMysql(server, { folder, address, flags }, tools)),
    async base() {
      const base = { ...address, database: "pinterest_base" };
      if (!based) {
        const admin = await mysql.createConnection(address);
        await admin.query("CREATE DATABASE pinterest_base CHARACTER SET utf8mb4");
        admin.destroy();
        await loadSample(base, { rows: baseRows });
      }
      based = true;
      return base;
    },
    root: () => mysql.createConnection({ socketPath: join(folder, "mariadb", "mysqld.sock"), user: "root" }),
  };
}

/** Number of sample posts that are created and copied from. */
export const baseRows = 16_000;
