/**
 * What is known about the services of one data folder: `services/state.json`, and the messages on the control port.
 *
 * @module
 */
import { mkdirSync, readFileSync, renameSync, writeFileSync } from "node:fs";
import { dirname, join, resolve } from "node:path";
import type { ProcessId } from "./processes.ts";

/** How to reach the MySQL server. */
export interface MysqlAddress {
  host: string;
  port: number;
  user: string;
  password: string;
  database: string;
}

/** How to reach Kafka. */
export interface KafkaAddress {
  brokers: string[];
}

/** A service, named for its protocol. Where ZooKeeper is one, Kafka runs by it. */
export type ServiceName = "mysql" | "zookeeper" | "kafka";

/** The services that are ready. */
export interface Addresses {
  mysql?: MysqlAddress;
  kafka?: KafkaAddress;
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
export type Reply = { say: string } | { ready: Addresses; keep: boolean } | { error: string };

/** The folder that holds the services' data, logs and state. */
export const servicesFolder = (dataDir: string) => resolve(dataDir, "services");

/** The credentials file that {@link useServices} writes while MariaDB runs. */
export const credsPath = (folder: string) => join(folder, "db_creds.yaml");

/** The state of a services folder, or undefined where there was never one. */
export function readState(folder: string): State | undefined {
  try {
    return JSON.parse(readFileSync(join(folder, "state.json"), "utf8")) as State;
  } catch (error) {
    if (error instanceof SyntaxError || (error as NodeJS.ErrnoException).code === "ENOENT") return undefined;
    throw error;
  }
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
    throw new Error(`Cannot write to the services' folder "${folder}"`, { cause: error });
  }
}
