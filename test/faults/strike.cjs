/**
 * Injects faults into the program; loaded by NODE_OPTIONS=--require, also in its threads.
 *
 * Writes each trace point to the file PIPELINE_STEPS. At the n-th one that matches PIPELINE_STRIKE (`kill 3 silver` or
 * `pause 1 ^committing pin`), it kills the program, or pauses it while `.hold` exists.
 */
const { subscribe } = require("node:diagnostics_channel");
const { appendFileSync, existsSync } = require("node:fs");

const trace = process.env.PIPELINE_STEPS;
const [, action, nth, pattern = ""] = /^(kill|pause) (\d+) (.*)$/.exec(process.env.PIPELINE_STRIKE ?? "") ?? [];
const struck = new RegExp(pattern);
const never = new Int32Array(new SharedArrayBuffer(4));
let times = 0;

const write = (text) => appendFileSync(trace, `${process.pid}\t${Date.now()}\t${text}\n`);

if (trace) {
  subscribe("pinterest-pipeline:step", ({ name, subject }) => {
    write(`${name}\t${subject}`);
    if (!action || !struck.test(`${name} ${subject}`) || ++times !== Number(nth)) return;
    write(`struck\t${name} ${subject}`);
    if (action === "kill") {
      process.kill(process.pid, "SIGKILL");
      Atomics.wait(never, 0, 0);
    }
    while (existsSync(`${trace}.hold`)) Atomics.wait(never, 0, 0, 20);
  });
}
