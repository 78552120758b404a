/**
 * The private services, for use when none are configured: a MariaDB and a Kafka of this data folder, shared by all
 * programs that use the folder and stopped with the last of them.
 *
 * ```ts
 * await using services = await useServices({ dataDir: "data", mysql: true, kafka: true, say: console.error });
 * console.log(services.mysql?.port, services.kafka?.brokers);
 * ```
 *
 * A separate process, the supervisor, runs them. Every program that uses them holds a connection to it. The operating
 * system closes that connection even if the program is killed, so no service stays behind.
 *
 * @module
 */

import { type ChildProcess, spawn } from "node:child_process";
import { closeSync, existsSync, openSync } from "node:fs";
import { rename, rm } from "node:fs/promises";
import { connect, type Socket } from "node:net";
import { dirname, join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { isHeld, takeLock } from "../runtime/lock.ts";
import { ownCommand } from "../runtime/program.ts";
import { endOrphan, isRunning, logTail, showWait, stopDeadline, within } from "./processes.ts";
import {
  type Addresses,
  credsPath,
  findSupervisor,
  lockPath,
  makeFolder,
  type Reply,
  type Request,
  readLines,
  readState,
  type ServiceName,
  servicesFolder,
} from "./state.ts";

/** Services that are running. */
interface RunningServices extends Addresses {
  /** Whether they keep running after the last program has left. */
  keptRunning: boolean;
  /** A db_creds.yaml (mode 600) for them; exists while MariaDB runs. */
  credsFile: string;
}

/** Services in use. Disposing releases them; the last user waits until they have stopped, unless they are kept. */
export interface Services extends RunningServices, AsyncDisposable {
  /** Aborted with an error that says what to do, if another process stops or kills the services. */
  lost: AbortSignal;
}

/** Options of {@link useServices}. */
interface UseOptions {
  /** The data folder; the services use its subfolder `services`. */
  dataDir: string;
  /** Whether MariaDB is needed. */
  mysql: boolean;
  /** Whether Kafka is needed. */
  kafka: boolean;
  /** Whether Kafka is a 3.9 with ZooKeeper. It needs a data folder other than that of a Kafka without. Default: false. */
  zookeeper?: boolean;
  /** Whether the services keep running after the last program has left, until {@link stopServices}. Default: false. */
  keep?: boolean;
  /** Gets events as lines. */
  say: (line: string) => void;
  /** Gets the progress of a subject as a line that replaces the former one; without a text it is over. */
  onProgress?: (subject: string, text?: string) => void;
  /** If aborted before the services are ready, the call releases them and rejects within 3 s. */
  signal?: AbortSignal;
}

/** How long a release waits, ms: the stop deadline of the services, and time to learn of their end; below 3 s in all. */
const leaveDeadline = stopDeadline + 300;

/** Uses the services of a data folder, and starts those that do not run. */
export async function useServices(options: UseOptions): Promise<Services> {
  const { dataDir, mysql, kafka, zookeeper = false, keep = false, say, onProgress, signal } = options;
  const folder = servicesFolder(dataDir);
  const wanted: ServiceName[] = mysql ? ["mysql"] : [];
  if (kafka && zookeeper) wanted.push("zookeeper");
  if (kafka) wanted.push("kafka");
  for (;;) {
    const line = await reach(folder, signal);
    let leaving = false;
    const lost = new AbortController();
    const leave = async () => {
      leaving = true;
      line.socket.ref().end();
      const ended = within(leaveDeadline, line.closed);
      await showWait(ended, "Stopping the local services", options);
      line.socket.destroy();
    };
    try {
      const { ready, keep: keptRunning } = await new Promise<Extract<Reply, { ready: Addresses }>>(
        (resolve, reject) => {
          let answered = false;
          const lose = () => {
            if (!leaving) lost.abort(stopped);
            reject(stopped);
          };
          const refuse = (sent: string) => {
            reject(
              new Error(`Cannot understand ${supervisorOf(line)} of the local services: it sent ${sent}; ${repeat}`),
            );
            line.socket.destroy();
          };
          const silent = () =>
            reject(new Error(`Cannot use the local services: ${supervisorOf(line)}, does not answer; ${repeat}`));
          line.socket.setTimeout(answerDeadline, silent);
          const onLine = (text: string) => {
            answered = true;
            line.socket.setTimeout(0);
            let reply: Reply;
            try {
              reply = JSON.parse(text) as Reply;
            } catch {
              return refuse("no JSON");
            }
            if ("say" in reply) say(reply.say);
            else if ("progress" in reply) onProgress?.(reply.progress, reply.text);
            else if ("error" in reply) reject(new Error(reply.error));
            else if ("stopped" in reply) lose();
            else if ("ready" in reply) resolve(reply);
          };
          readLines(line.socket, { onLine, onTooLong: () => refuse("a line over 64 kB") });
          void line.closed.then(() => {
            if (answered) lose();
            else reject(neverAnswered);
          });
          signal?.addEventListener("abort", () => reject(signal.reason), { once: true });
          signal?.throwIfAborted();
          send(line, { token: line.token, use: wanted, keep });
        },
      );
      line.socket.unref(); // so that a program that forgets to release them can still end
      return {
        ...(mysql && ready.mysql && { mysql: ready.mysql }),
        ...(kafka && ready.kafka && { kafka: ready.kafka }),
        keptRunning,
        credsFile: credsPath(folder),
        lost: lost.signal,
        [Symbol.asyncDispose]: leave,
      };
    } catch (error) {
      await leave();
      if (error !== neverAnswered) throw error;
    }
  }
}

/** The supervisor was about to end when it was called: call again. */
const neverAnswered = new Error("The supervisor did not answer");
const stopped = new Error("The local services were stopped or killed; run the same command again, which starts them");

/** Time for the supervisor to answer a request, ms; services may start much later. It may be frozen. */
const answerDeadline = 10_000;
const supervisorOf = ({ pid }: Line) => `process ${pid}, the supervisor`;
const repeat = "run down, then repeat this command";

/** The running services of a data folder; undefined if none run. Starts nothing. */
export function findServices({ dataDir }: { dataDir: string }): RunningServices | undefined {
  const folder = servicesFolder(dataDir);
  const state = findSupervisor(folder);
  if (!state) return undefined;
  return { ...state.ready, keptRunning: state.keep ?? false, credsFile: credsPath(folder) };
}

/** Stops the services of a data folder, even if other programs use them. @returns whether any ran */
export async function stopServices({ dataDir, say }: Pick<UseOptions, "dataDir" | "say">): Promise<boolean> {
  const folder = servicesFolder(dataDir);
  const state = readState(folder);
  if (!state) return false;
  const { supervisor, children } = state;
  const line = await call(folder);
  if (line) {
    say("Stopping the local services");
    send(line, { token: line.token, stop: true });
    const ended = await within(stopDeadline + 1_500, line.closed);
    line.socket.destroy();
    if (!ended && supervisor && isRunning(supervisor, state.folder)) process.kill(supervisor.pid, "SIGKILL");
  }
  // Services of a killed supervisor.
  const orphans = children.filter((child) => isRunning(child, state.folder));
  await Promise.all(orphans.map((child) => endOrphan(child, state.folder)));
  findSupervisor(folder); // deletes the credentials file of a killed supervisor
  return line !== undefined || orphans.length > 0;
}

/** Stops the services of a data folder, even if other programs use or start them, and deletes their data. */
export async function deleteServices(options: Pick<UseOptions, "dataDir" | "say">): Promise<void> {
  const folder = servicesFolder(options.dataDir);
  const deadline = Date.now() + 10_000;
  while (existsSync(folder)) {
    await stopServices(options);
    try {
      // No supervisor can start meanwhile.
      const lock = await takeLock(lockPath(folder));
      const unwanted = `${folder}.deleted`;
      await rm(unwanted, { recursive: true, force: true });
      await rename(folder, unwanted);
      lock.closeSync();
      return await rm(unwanted, { recursive: true, force: true });
    } catch (error) {
      if (!isHeld(error) || Date.now() > deadline) throw error;
      await sleep(50); // one is starting; then it can be stopped
    }
  }
}

/** A connection to the supervisor. */
interface Line {
  socket: Socket;
  /** The pid of the supervisor. */
  pid: number;
  token: string;
  closed: Promise<void>;
}

const send = ({ socket }: Line, request: Request) => socket.write(`${JSON.stringify(request)}\n`);

/** Connects to the folder's supervisor, and starts one if there is none. */
async function reach(folder: string, signal?: AbortSignal): Promise<Line> {
  const log = join(folder, "supervisor.log");
  const deadline = Date.now() + 30_000;
  let own: ChildProcess | undefined;
  try {
    while (Date.now() < deadline) {
      signal?.throwIfAborted();
      const line = await call(folder);
      if (line) return line;
      if (own?.exitCode || own?.signalCode)
        throw existsSync(folder) ? new Error(`Cannot start the local services${logTail(log)}`) : stopped;
      if (!own || own.exitCode === 0) {
        makeFolder(folder);
        own = startSupervisor(folder, log);
      }
      await sleep(20);
    }
    const { supervisor } = readState(folder) ?? {};
    const who = supervisor ? ` (process ${supervisor.pid})` : "";
    throw new Error(
      `Cannot reach the supervisor of the local services${who} within 30 s. If another machine or container uses "${folder}", stop it there, or choose another folder with --data${logTail(log)}`,
    );
  } finally {
    // Another program's supervisor was faster, or the caller gave up. No client can have connected to this one.
    if (own && own.pid !== readState(folder)?.supervisor?.pid) own.kill();
  }
}

/** Connects to the supervisor that `state.json` names, if it runs. */
async function call(folder: string): Promise<Line | undefined> {
  const state = findSupervisor(folder);
  if (!state) return undefined;
  const socket = connect(state.control.port, "127.0.0.1");
  const closed = new Promise<void>((resolve) => socket.once("close", () => resolve()));
  const open = await new Promise<boolean>((resolve) => {
    socket.once("connect", () => resolve(true)).once("error", () => resolve(false));
    socket.setTimeout(2_000, () => resolve(false));
  });
  socket.setTimeout(0).on("error", () => {}); // "close" follows
  if (open) return { socket, pid: state.supervisor.pid, token: state.control.token, closed };
  socket.destroy();
  return undefined;
}

function startSupervisor(folder: string, log: string): ChildProcess {
  const output = openSync(log, "a", 0o600);
  const [command, args] = ownCommand("local/supervise.ts", [folder]);
  const child = spawn(command, args, {
    cwd: dirname(folder), // not the folder, which reset may delete: tsx hangs without its working directory
    detached: true, // so that Ctrl+C reaches only the programs
    stdio: ["ignore", output, output],
    env: { ...process.env, NODE_OPTIONS: "" },
  });
  closeSync(output);
  child.unref();
  return child;
}
