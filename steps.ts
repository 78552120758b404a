/**
 * The named steps of posting and publishing, for the fault tests: where PIPELINE_STEPS names a file, each step is
 * written to it, and the program strikes itself where PIPELINE_STRIKE says: `kill 3 silver`, `pause 1 committing pin`.
 *
 * @module
 */
import { appendFileSync, existsSync } from "node:fs";

const trace = process.env.PIPELINE_STEPS;
const [, action, nth, pattern = ""] = /^(kill|pause) (\d+) (.*)$/.exec(process.env.PIPELINE_STRIKE ?? "") ?? [];
const struck = new RegExp(pattern);
const never = new Int32Array(new SharedArrayBuffer(4));
let times = 0;

const write = (text: string) => appendFileSync(trace as string, `${process.pid}\t${Date.now()}\t${text}\n`);

/** Says that a step has been reached. Nothing happens but for the fault tests: they have it written down, and at the n-th time of the one they ask for the process ends, or waits while `.hold` exists. */
export function step(name: string, subject: string): void {
  if (!trace) return;
  const text = `${name}\t${subject}`;
  write(text);
  if (!action || !struck.test(`${name} ${subject}`) || ++times !== Number(nth)) return;
  write(`struck\t${name} ${subject}`);
  if (action === "kill") {
    process.kill(process.pid, "SIGKILL");
    Atomics.wait(never, 0, 0);
  }
  while (existsSync(`${trace}.hold`)) Atomics.wait(never, 0, 0, 20);
}
