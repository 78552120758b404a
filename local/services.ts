/**
 * The services that run when none are configured: a MariaDB and a Kafka of this data folder, shared by all programs
 * that use the folder and ended with the last of them.
 *
 * ```ts
 * await using services = await useServices({ dataDir: "data", mysql: true, kafka: true, say: console.error });
 * console.log(services.mysql?.port, services.kafka?.brokers);
 * ```
 *
 * A process of its own, the supervisor, runs them. Every program that uses them holds a connection to it; the system
 * closes that even for a program that is killed, so nothing stays behind.
 *
 * @module
 */
import { type ChildProcess, spawn } from "node:child_process";
import { closeSync, openSync } from "node:fs";
import { connect, type Socket } from "node:net";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { setTimeout as sleep } from "node:timers/promises";
import { fileURLToPath } from "node:url";
import { endOrphan, isRunning, logTail, within } from "./processes.ts";
import {
  type Addresses,
  credsPath,
  makeFolder,
  type Reply,
  type Request,
  readState,
  type ServiceName,
  servicesFolder,
} from "./state.ts";

export type { KafkaAddress, MysqlAddress } from "./state.ts";

/** Services that are running. */
export interface RunningServices extends Addresses {
  /** Whether they go on when the last program has left. */
  keptRunning: boolean;
  /** A db_creds.yaml (mode 600) for them; exists while MariaDB runs. */
  credsFile: string;
}

/** Services in use. To dispose is to leave: the last to leave waits until they have ended, unless they are kept. */
export interface Services extends RunningServices, AsyncDisposable {}

/** What {@link useServices} needs to know. */
export interface UseOptions {
  /** The program's folder; the services live in its folder `services`. */
  dataDir: string;
  /** Whether MariaDB is needed. */
  mysql: boolean;
  /** Whether Kafka is needed. */
  kafka: boolean;
  /** Whether the services stay when the last program has left, until {@link stopServices}. Default: false. */
  keep?: boolean;
  /** Gets progress and news as lines. */
  say: (line: string) => void;
  /** Leaves, and rejects within 3 s, when aborted before the services are ready. */
  signal?: AbortSignal;
}

/** How long leaving waits, in ms. The services' own deadline is shorter. */
const leaveDeadline = 3_000;

/** Uses the services of a data folder, starting those that do not run. */
export async function useServices({ dataDir, mysql, kafka, keep = false, say, signal }: UseOptions): Promise<Services> {
  const folder = servicesFolder(dataDir);
  makeFolder(folder);
  const { socket, token } = await reach(folder, signal);
  const closed = new Promise<void>((resolve) => socket.once("close", resolve));
  const leave = async () => {
    leaving = true;
    socket.ref().end();
    await within(leaveDeadline, closed);
    socket.destroy();
  };
  let leaving = false;

  const wanted: ServiceName[] = [...(mysql ? ["mysql" as const] : []), ...(kafka ? ["kafka" as const] : [])];
  send(socket, { token, use: wanted, keep });
  try {
    const ready = await new Promise<Extract<Reply, { ready: Addresses }>>((resolve, reject) => {
      createInterface({ input: socket }).on("line", (line) => {
        const reply = JSON.parse(line) as Reply;
        if ("say" in reply) say(reply.say);
        else if ("error" in reply) reject(new Error(reply.error));
        else resolve(reply);
      });
      const lost = "The local services have ended: they were stopped or killed";
      socket.once("close", () => {
        if (!leaving) say(`${lost}. The next command starts them again`);
        reject(new Error(lost));
      });
      signal?.addEventListener("abort", () => reject(signal.reason), { once: true });
      if (signal?.aborted) reject(signal.reason);
    });
    socket.unref(); // a program that forgets to leave can end all the same
    return {
      ...(mysql && ready.ready.mysql && { mysql: ready.ready.mysql }),
      ...(kafka && ready.ready.kafka && { kafka: ready.ready.kafka }),
      keptRunning: ready.keep,
      credsFile: credsPath(folder),
      [Symbol.asyncDispose]: leave,
    };
  } catch (error) {
    await leave();
    throw error;
  }
}

/** The services that run in a data folder, without starting or using any; undefined when none do. */
export function findServices({ dataDir }: { dataDir: string }): RunningServices | undefined {
  const folder = servicesFolder(dataDir);
  const state = readState(folder);
  if (!state?.supervisor || !isRunning(state.supervisor, state.folder)) return undefined;
  return { ...state.ready, keptRunning: state.keep ?? false, credsFile: credsPath(folder) };
}

/** Stops the services of a data folder, also those that other programs use; tells whether any ran. */
export async function stopServices({ dataDir, say }: Pick<UseOptions, "dataDir" | "say">): Promise<boolean> {
  const folder = servicesFolder(dataDir);
  const state = readState(folder);
  if (!state) return false;
  const open = await callSupervisor(folder);
  if (open) {
    say("Stopping the local services");
    const closed = new Promise<void>((resolve) => open.socket.once("close", resolve));
    send(open.socket, { token: open.token, stop: true });
    if (!(await within(leaveDeadline + 1_000, closed)) && state.supervisor && isRunning(state.supervisor, state.folder))
      process.kill(state.supervisor.pid, "SIGKILL"); // its services end with it
    open.socket.destroy();
  }
  const orphans = state.children.filter((child) => isRunning(child, state.folder));
  await Promise.all(orphans.map((child) => endOrphan(child, state.folder)));
  return open !== undefined || orphans.length > 0;
}

interface Line {
  socket: Socket;
  token: string;
}

const send = (socket: Socket, request: Request) => socket.write(`${JSON.stringify(request)}\n`);

/** A connection to the folder's supervisor, which is started when there is none. */
async function reach(folder: string, signal?: AbortSignal): Promise<Line> {
  const deadline = Date.now() + 30_000;
  let own: ChildProcess | undefined;
  try {
    while (Date.now() < deadline) {
      signal?.throwIfAborted();
      const line = await callSupervisor(folder);
      if (line) return line;
      if (own?.exitCode || own?.signalCode)
        throw new Error(`Cannot start the local services. ${logTail(join(folder, "supervisor.log"))}`);
      if (!own || own.exitCode === 0) own = startSupervisor(folder);
      await sleep(20, undefined, signal && { signal });
    }
    throw new Error(`Cannot reach the local services' supervisor in 30 s. ${logTail(join(folder, "supervisor.log"))}`);
  } finally {
    const { supervisor } = readState(folder) ?? {};
    if (own && own.pid !== supervisor?.pid) own.kill(); // somebody else's was faster
  }
}

async function callSupervisor(folder: string): Promise<Line | undefined> {
  const state = readState(folder);
  if (!state?.control || !state.supervisor || !isRunning(state.supervisor, state.folder)) return undefined;
  const socket = connect(state.control.port, "127.0.0.1");
  const open = await new Promise<boolean>((resolve) => {
    socket.once("connect", () => resolve(true)).once("error", () => resolve(false));
    socket.setTimeout(2_000, () => resolve(false));
  });
  socket.setTimeout(0).on("error", () => {});
  if (open) return { socket, token: state.control.token };
  socket.destroy();
  return undefined;
}

function startSupervisor(folder: string): ChildProcess {
  const log = openSync(join(folder, "supervisor.log"), "a", 0o600);
  const entry = fileURLToPath(new URL("./supervisor.ts", import.meta.url));
  const child = spawn(process.execPath, ["--import", import.meta.resolve("tsx"), entry, folder], {
    cwd: folder,
    detached: true, // Ctrl+C in the terminal is for the programs
    stdio: ["ignore", log, log],
    env: { ...process.env, NODE_OPTIONS: "" },
  });
  closeSync(log);
  child.unref();
  return child;
}
