/**
 * Ends the program with the shell in which `npx` or `npm start` runs it.
 *
 * npm passes SIGTERM on to its shell alone, and Debian's dies of it without passing it on. bash replaces itself with
 * the program, so there the signal arrives.
 *
 * @module
 */

import { readCommandLine, readStat } from "../runtime/process.ts";

/** A process and its arguments. */
interface Process {
  parent: number;
  args: string[];
}

/** @returns nothing for a process that has ended, or where there is no /proc */
export function readProcess(pid: number): Process | undefined {
  const stat = readStat(pid);
  return stat && { parent: stat.parent, args: readCommandLine(pid).split("\0") };
}

/**
 * The shell that npm started for this program alone, above tsx or not.
 *
 * It must be npm's child, so that `nohup` and `setsid` are never mistaken for it, and its command must not go on to
 * something else, so that it never ends before the program does.
 */
export function npmShell(parent: number, read: (pid: number) => Process | undefined = readProcess): number | undefined {
  for (const pid of [parent, read(parent)?.parent]) {
    const found = pid === undefined ? undefined : read(pid);
    const [shell = "", option, command = ""] = found?.args ?? [];
    if (!found || !/(^|\/)\w*sh$/.test(shell) || option !== "-c" || /[;&|\n]/.test(command)) continue;
    const [title = "", script = ""] = read(found.parent)?.args ?? [];
    return /^npm /.test(title) || /\/np[mx]-cli\.js$/.test(script) ? pid : undefined;
  }
  return undefined;
}

/** Calls `onEnd` when the shell of npm that runs this program is killed. */
export function watchNpmShell(onEnd: () => void): void {
  if (!process.env.npm_command) return;
  const shell = npmShell(process.ppid);
  if (shell === undefined) return;
  const timer = setInterval(() => {
    if (readProcess(shell)?.args.includes("-c")) return;
    clearInterval(timer);
    onEnd();
  }, 200);
  timer.unref();
}
