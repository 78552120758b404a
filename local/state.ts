/**
 * What is known about the services of one data folder: `services/state.json`, and the messages on the control port.
 *
 * @module
 */

import { timingSafeEqual } from "node:crypto";
import { mkdirSync, readFileSync, renameSync, rmSync, writeFileSync } from "node:fs";
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

/** A service, named for its protocol. Where ZooKeeper is one, Kafka runs by it. */
export type ServiceName = "mysql" | "zookeeper" | "kafka";

/** The services that are ready. */
export interface Addresses {
  mysql?: MysqlAddress;
  kafka?: { brokers: string[] };
}

/** `state.json`. What is absent isn't running; password and ports stay for the next time. */
export interface State {
  /** The folder as the processes below name it in their command lines. */
  folder: string;
  password: string;
  ports: Record<string, number>;
  supervisor?: ProcessId;
  /** Where the supervisor listens, and what a client must know to be heard. */
  control?: { port: number; token: string };
  keep?: boolean;
  /** Everything the supervisor started, for whoever comes after it was killed. */
  children: ProcessId[];
  ready: Addresses;
}

/** What a program asks of the supervisor. */
export type Request = { token: string } & ({ use: ServiceName[]; keep: boolean } | { stop: true });

/** What the supervisor says to a program. */
export type Reply =
  | { say: string }
  | { progress: string; text?: string }
  | { ready: Addresses; keep: boolean }
  | { error: string };

/** The longest line on the control port, in bytes; the longest that a program or the supervisor writes has a few kB. */
const longestLine = 65_536;

/**
 * Hands over each line that comes from the control port, and keeps no more than one.
 *
 * @param options.opening what the first line must begin with: a socket that sends anything else is cut before more is kept
 * @param options.onTooLong is called when a line is over 64 kB; the socket is cut
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
      // Judged as a whole: an answer to each byte would let a stranger guess the token byte by byte.
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

/** The state of a services folder, or undefined where there was never one. */
export function readState(folder: string): State | undefined {
  try {
    return JSON.parse(readFileSync(join(folder, "state.json"), "utf8")) as State;
  } catch (error) {
    // ENOTDIR: the folder would be below a file.
    const isAbsent = /^(ENOENT|ENOTDIR)$/.test((error as NodeJS.ErrnoException).code ?? "");
    if (error instanceof SyntaxError || isAbsent) return undefined;
    throw error;
  }
}

/**
 * The state of a services folder whose supervisor runs. The credentials file that a killed supervisor left behind is
 * deleted.
 */
export function findSupervisor(folder: string): (State & Required<Pick<State, "supervisor" | "control">>) | undefined {
  const state = readState(folder);
  const { supervisor, control } = state ?? {};
  if (state && supervisor && control && isRunning(supervisor, state.folder)) return { ...state, supervisor, control };
  rmSync(credsPath(folder), { force: true });
  return undefined;
}

/** Puts a file that only its owner may read in place by an atomic rename. */
export function writePrivate(path: string, text: string): void {
  const unfinished = `${path}.unfinished`; // the supervisor alone writes
  writeFileSync(unfinished, text, { mode: 0o600 });
  renameSync(unfinished, path);
}

/** Makes the services folder: for its owner only, and kept out of git wherever it lies. */
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
