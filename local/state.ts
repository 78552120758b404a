/**
 * The state of the services of one data folder, `services/state.json`, and the messages on the control port.
 *
 * @module
 */

import { timingSafeEqual } from "node:crypto";
import { existsSync, mkdirSync, readFileSync, renameSync, rmSync, statSync, writeFileSync } from "node:fs";
import type { Socket } from "node:net";
import { dirname, join, resolve } from "node:path";
import { isRunning, type ProcessId } from "./processes.ts";

/** How to reach the MySQL server. */
export interface MysqlAddress {
  host: string;
  port: number;
  user: string;
  password: string;
  database: string;
}

/** A service, named for its protocol. With `zookeeper`, Kafka uses ZooKeeper. */
export type ServiceName = "mysql" | "zookeeper" | "kafka";

/** The services that are ready. */
export interface Addresses {
  mysql?: MysqlAddress;
  kafka?: { brokers: string[] };
}

/** `state.json`. A field that is absent is not running; password and ports are kept for the next start. */
export interface State {
  /** The folder, as in the command lines of the processes. */
  folder: string;
  /** Device and inode of the folder: a renamed folder keeps them, a copy has others. Absent in older versions. */
  inode?: string;
  password: string;
  ports: Record<string, number>;
  supervisor?: ProcessId;
  /** The port of the supervisor, and the token that a client must send. */
  control?: { port: number; token: string };
  keep?: boolean;
  /** All processes that the supervisor started, for its successor if it is killed. */
  children: ProcessId[];
  ready: Addresses;
}

/** A request from a program to the supervisor. */
export type Request = { token: string } & ({ use: ServiceName[]; keep: boolean } | { stop: true });

/** A message from the supervisor to a program. */
export type Reply =
  | { heard: true }
  | { say: string }
  | { progress: string; text?: string }
  | { ready: Addresses; keep: boolean }
  | { stopped: true }
  | { error: string };

/** The longest accepted line on the control port, bytes. Real lines have at most a few kB. */
const longestLine = 65_536;

/**
 * Passes on each line that arrives on the control port; buffers at most one line.
 *
 * @param options.opening required beginning of the first line; a socket that sends anything else is closed
 * @param options.onTooLong called when a line is over 64 kB; the socket is closed
 */
export function readLines(
  socket: Socket,
  { opening, onLine, onTooLong }: { opening?: Buffer; onLine: (line: string) => void; onTooLong?: () => void },
): void {
  let rest: Buffer = Buffer.alloc(0);
  let expected = opening;
  socket.on("data", (chunk: Buffer) => {
    rest = Buffer.concat([rest, chunk]);
    if (expected) {
      // Compared as a whole: an answer after each byte would let a stranger guess the token byte by byte.
      if (rest.length < expected.length) return;
      if (!timingSafeEqual(rest.subarray(0, expected.length), expected)) return void socket.destroy();
      expected = undefined;
    }
    for (let end = rest.indexOf("\n"); end >= 0 && end <= longestLine; end = rest.indexOf("\n")) {
      const line = rest.toString("utf8", 0, end);
      rest = rest.subarray(end + 1);
      onLine(line);
      if (socket.destroyed) return;
    }
    if (rest.length <= longestLine) return;
    socket.destroy();
    onTooLong?.();
  });
}

/** The folder that holds the services' data, logs and state. */
export const servicesFolder = (dataDir: string) => resolve(dataDir, "services");

/** The credentials file that {@link useServices} writes while MariaDB runs. */
export const credsPath = (folder: string) => join(folder, "db_creds.yaml");

/** The lock of a services folder: its supervisor holds it. */
export const lockPath = (folder: string) => join(folder, "lock.duckdb");

/** Device and inode of a folder. */
export function inodeOf(folder: string): string {
  const { dev, ino } = statSync(folder, { bigint: true });
  return `${dev}:${ino}`;
}

/**
 * The state of a services folder; undefined if it was never used or is no state. In a copy of a folder only password and
 * ports hold: the processes are those of the original.
 */
export function readState(folder: string): State | undefined {
  try {
    const state: unknown = JSON.parse(readFileSync(join(folder, "state.json"), "utf8"));
    if (!isState(state)) return undefined;
    const { inode, password, ports } = state;
    const isCopy = inode !== undefined && inode !== inodeOf(folder);
    return isCopy ? { folder, password, ports, children: [], ready: {} } : state;
  } catch (error) {
    // ENOTDIR: the folder would be below a file.
    const isAbsent = /^(ENOENT|ENOTDIR)$/.test((error as NodeJS.ErrnoException).code ?? "");
    if (error instanceof SyntaxError || isAbsent) return undefined;
    throw error;
  }
}

function isState(found: unknown): found is State {
  const { folder, ports, children, ready } = (found ?? {}) as Partial<Record<keyof State, unknown>>;
  const isObject = (value: unknown): value is object => typeof value === "object" && value !== null;
  const isPort = (port: unknown) => Number.isInteger(port) && (port as number) > 0 && (port as number) < 65_536;
  const isUsable = isObject(ports) && Object.values(ports).every(isPort) && isObject(ready);
  return typeof folder === "string" && isUsable && Array.isArray(children) && children.every(isObject);
}

/**
 * The state of a services folder, if its supervisor runs. Otherwise deletes the credentials file, which a killed
 * supervisor may have left behind.
 */
export function findSupervisor(folder: string): (State & Required<Pick<State, "supervisor" | "control">>) | undefined {
  const state = readState(folder);
  const { supervisor, control } = state ?? {};
  if (state && supervisor && control && isRunning(supervisor, state.folder)) return { ...state, supervisor, control };
  if (existsSync(credsPath(folder))) rmSync(credsPath(folder), { force: true });
  return undefined;
}

/** Writes a file that only its owner may read, with an atomic rename. */
export function writePrivate(path: string, text: string): void {
  const unfinished = `${path}.unfinished`; // only the supervisor writes it
  writeFileSync(unfinished, text, { mode: 0o600 });
  renameSync(unfinished, path);
}

/** Creates the services folder, readable by its owner only and ignored by git. */
export function makeFolder(folder: string): void {
  try {
    mkdirSync(dirname(folder), { recursive: true });
    mkdirSync(folder, { recursive: true, mode: 0o700 });
    writeFileSync(join(folder, ".gitignore"), "*\n");
  } catch (error) {
    const reason = (error as Error).message;
    throw new Error(`Cannot write to "${folder}": ${reason}; choose another folder with --data`, { cause: error });
  }
}
