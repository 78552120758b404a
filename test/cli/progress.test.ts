/** Progress lines as a terminal shows them. */
import assert from "node:assert/strict";
import { test } from "node:test";
import { openTerminal } from "../../cli/terminal.ts";

test("the rate and the time left of a stage that resumes count only the rows of this run", (t) => {
  const { stderr } = process;
  const isTTY = Object.getOwnPropertyDescriptor(stderr, "isTTY");
  t.after(() => Object.defineProperty(stderr, "isTTY", isTTY ?? { value: undefined, configurable: true }));
  Object.defineProperty(stderr, "isTTY", { value: true, configurable: true });
  const written: string[] = [];
  t.mock.method(stderr, "write", (text: string) => written.push(text) > 0);
  t.mock.timers.enable({ apis: ["setInterval", "Date"] });
  const progress = openTerminal({ quiet: false }).progress("sample");
  t.mock.timers.tick(1_000); // connecting takes time too
  progress.set("pin", 900_000, 1_000_000);
  t.mock.timers.tick(2_000);
  progress.set("pin", 920_000, 1_000_000);
  t.mock.timers.tick(200);
  const shown = written.findLast((text) => text.includes("pin")) ?? "";
  progress.end();
  assert.match(shown, /920,000 of about 1,000,000 rows, 9,091\/s, 8\.8 s/);
});
