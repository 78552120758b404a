/**
 * Starts child processes that never outlive their parent, and identifies processes by more than their pid.
 *
 * @module
 */
import { type ChildProcess, execFile, type SpawnOptions, spawn, spawnSync } from "node:child_process";
import { existsSync, readFileSync, statfsSync } from "node:fs";
import { connect, createServer } from "node:net";
import { basename, dirname } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { duration } from "../io/text.ts";
import { readCommandLine, readStat } from "../runtime/process.ts";

/** Time for a process to end after SIGTERM, ms; then it is killed. A command has 3 s in all to stop. */
export const stopDeadline = 2_500;

/** Distinguishes a process from a later one with the same pid. */
export interface ProcessId {
  /** The program's file name: `java`, `mariadbd`. */
  name: string;
  pid: number;
  /** Its start time, in the system's format. */
  started: string;
}

/** A child process, the leader of its process group, that ends when this process ends, even by SIGKILL. */
export interface Guarded {
  id: ProcessId;
  child: ChildProcess;
  /** Resolves when the process has ended, to `exit code 1`, `SIGKILL` or the like. */
  ended: Promise<string>;
  /** Ends the process and its descendants: SIGTERM, after {@link stopDeadline} SIGKILL. */
  stop(): Promise<void>;
}

/** What starting a service needs. */
export interface Tools {
  /** Gets lines for people. */
  say: (line: string) => void;
  /** Gets the progress of a subject as a line that replaces the former one; without a text it is over. */
  onProgress?: (subject: string, text?: string) => void;
  spawn: typeof spawnGuarded;
  signal: AbortSignal;
}

/** Shows the elapsed time as progress until a promise settles. */
export async function showWait<T>(
  wait: Promise<T>,
  text: string,
  { onProgress }: Pick<Tools, "onProgress">,
): Promise<T> {
  const began = Date.now();
  const shown = setInterval(() => onProgress?.(text, `${text}: ${duration(Date.now() - began)}`), 250);
  return wait.finally(() => {
    clearInterval(shown);
    onProgress?.(text);
  });
}

/**
 * The shell forks a watcher and becomes the program. The watcher reads a pipe that only this process holds open, and
 * ends the group when the pipe closes. Being in the group, it keeps the group's number from being reused.
 */
const guard = `
(trap "" TERM
read -r _ <&3
kill -TERM -$$
i=0; while kill -0 $$ && [ $i -lt ${stopDeadline / 100} ]; do sleep 0.1; i=$((i + 1)); done
kill -KILL -$$) >/dev/null 2>&1 &
exec "$@" 3<&-`;

/** Starts a program under the guard. `output` gets stdout and stderr: a file, or "pipe". */
export function spawnGuarded(
  command: string,
  args: string[],
  { output, stdin = "ignore", ...options }: SpawnOptions & { output: number | "pipe"; stdin?: "ignore" | "pipe" },
): Guarded {
  const child = spawn("sh", ["-c", guard, "sh", command, ...args], {
    ...options,
    detached: true,
    stdio: [stdin, output, output, "pipe"],
  });
  const pid = child.pid;
  let over = false;
  const ended = new Promise<string>((resolve) => {
    child.once("error", (error) => resolve(error.message));
    child.once("exit", (code, signal) => {
      over = true;
      killGroup(pid, "SIGKILL"); // the watcher, and children of the program
      resolve(signal ?? `exit code ${code}`);
    });
  });
  child.stdio[3]?.on("error", () => {}); // the pipe breaks when the program dies
  return {
    id: { name: basename(command), pid: pid ?? 0, started: (pid && startTime(pid)) || "" },
    child,
    ended,
    async stop() {
      if (over) return;
      killGroup(pid, "SIGTERM");
      if (!(await within(stopDeadline, ended))) killGroup(pid, "SIGKILL");
      await within(1_000, ended);
    },
  };
}

/** What a command prints, to either stream; `undefined` if it fails or takes longer than `timeout` ms. */
export const outputOf = (command: string, args: string[], timeout = 20_000): Promise<string | undefined> =>
  new Promise<string | undefined>((resolve) => {
    execFile(command, args, { timeout }, (error, stdout, stderr) => resolve(error ? undefined : stdout + stderr));
  });

function killGroup(pid: number | undefined, signal: NodeJS.Signals) {
  try {
    if (pid) process.kill(-pid, signal);
  } catch {
    // the group has ended
  }
}

/** Whether a promise settles within `ms`. */
export async function within(ms: number, promise: Promise<unknown>): Promise<boolean> {
  const timer = new AbortController();
  const late = sleep(ms, false, { signal: timer.signal }).catch(() => false);
  const settled = promise.then(
    () => true,
    () => true,
  );
  return Promise.race([settled, late]).finally(() => timer.abort());
}

/** The id of this process, for {@link isRunning}. */
export const identifySelf = (): ProcessId => ({
  name: "supervisor",
  pid: process.pid,
  started: startTime(process.pid) ?? "",
});

/** Whether this process still runs: same pid, same start time, and a command line that contains `folder`. */
export function isRunning({ pid, started }: ProcessId, folder: string): boolean {
  return started !== "" && startTime(pid) === started && commandLine(pid).includes(folder);
}

/** Ends a process group whose parent has ended. Does nothing unless {@link isRunning} confirms the id. */
export async function endOrphan(id: ProcessId, folder: string): Promise<void> {
  if (!isRunning(id, folder)) return;
  killGroup(id.pid, "SIGTERM");
  const deadline = Date.now() + stopDeadline;
  while (isRunning(id, folder) && Date.now() < deadline) await sleep(20);
  killGroup(id.pid, "SIGKILL");
  while (isRunning(id, folder) && Date.now() < deadline + 1_000) await sleep(20);
}

/** The start time of a process from /proc (Linux) or ps; undefined if it has ended. Exported for tests. */
export function startTime(pid: number, platform = process.platform): string | undefined {
  if (platform !== "linux") return ps(pid, "lstart") || undefined;
  const stat = readStat(pid);
  return stat?.state === "Z" ? undefined : stat?.started;
}

const commandLine = (pid: number): string => (process.platform === "linux" ? readCommandLine(pid) : ps(pid, "command"));

const ps = (pid: number, column: string) => {
  const env = { ...process.env, LC_ALL: "C", TZ: "UTC" }; // the format depends on both
  return (
    spawnSync("ps", ["-o", `${column}=`, "-ww", "-p", String(pid)], { encoding: "utf8", env }).stdout?.trim() ?? ""
  );
};

/** The end of an error message: the remedy if the disk is full, and the last lines of the log if it has any. */
export function logTail(path: string, lines = 6): string {
  const text = existsSync(path) ? readFileSync(path, "utf8").trim() : "";
  const last = text
    .split("\n")
    .filter((line) => !/^\s+at /.test(line)) // Java stack frames
    .slice(-lines);
  const isFull = /No space left on device|error:? 28\b/.test(last.join("\n")) || diskIsFull(dirname(path));
  const remedy = isFull ? ". Its disk is full: make room there, or choose another folder with --data" : "";
  if (text === "") return remedy;
  return `${remedy}. The end of "${path}":\n${last.map((line) => `  ${line.slice(0, 500)}`).join("\n")}`;
}

/** Whether the disk of a folder has less than 64 kB left: a program that starts there cannot even write its log. */
function diskIsFull(folder: string): boolean {
  try {
    const { blocks, bavail, bsize } = statfsSync(folder);
    return blocks > 0 && bavail * bsize < 65_536;
  } catch {
    return false;
  }
}

/**
 * Waits until a process answers, or without `answer` until it ends with exit code 0.
 *
 * @throws `Error` with the end of its log, after it has stopped the process
 */
export async function untilReady(
  program: Guarded,
  options: { name: string; log: string; signal: AbortSignal; answer?: () => Promise<boolean>; deadline?: number },
): Promise<void> {
  const { name, log, signal, answer, deadline = 120_000 } = options;
  let how: string | undefined;
  void program.ended.then((end) => {
    how = end;
  });
  const until = Date.now() + deadline;
  try {
    while (!(await answer?.())) {
      if (how === "exit code 0" && !answer) return;
      const late = Date.now() > until ? `it was not ready after ${deadline / 1_000} s` : undefined;
      const reason = how === undefined ? late : `it ended with ${how}`;
      if (reason !== undefined) throw new Error(`Cannot start ${name}: ${reason}${logTail(log)}`);
      await sleep(20, undefined, { signal });
    }
  } catch (error) {
    await program.stop();
    throw error;
  }
}

/** A free TCP port of 127.0.0.1: the preferred one, or a random one below the range for outgoing connections. */
export async function freePort(preferred?: number): Promise<number> {
  const choices = Array.from({ length: 50 }, () => 20_000 + Math.floor(Math.random() * 12_000));
  for (const port of preferred ? [preferred, ...choices] : choices) if (await isFree(port)) return port;
  throw new Error("Cannot find a free TCP port between 20000 and 32000 on 127.0.0.1");
}

const isFree = (port: number) =>
  new Promise<boolean>((resolve) => {
    const server = createServer();
    server.once("error", () => resolve(false));
    server.listen(port, "127.0.0.1", () => server.close(() => resolve(true)));
  });

/** Largest answer that is read, bytes: an unrelated server on the port may send without end. */
const longestAnswer = 4_000_000;

/** The answer of a server on 127.0.0.1, until it closes, pauses for a second, or `enough` is true; empty without one. */
export const ask = (port: number, words: string | Buffer, enough: (said: Buffer) => boolean = () => false) =>
  new Promise<Buffer>((resolve) => {
    let said = Buffer.alloc(0);
    const socket = connect(port, "127.0.0.1", () => socket.write(words));
    socket.setTimeout(1_000, () => socket.destroy());
    socket.on("data", (bytes) => {
      said = Buffer.concat([said, bytes]);
      if (enough(said) || said.length > longestAnswer) socket.destroy();
    });
    socket.on("error", () => {}).on("close", () => resolve(said));
  });

/** Whether a server on 127.0.0.1 sends anything, with or without `words` sent first. */
export const answers = async (port: number, words: string | Buffer = ""): Promise<boolean> =>
  (await ask(port, words, () => true)).length > 0;
