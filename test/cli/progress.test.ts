/** Progress lines as a terminal shows them. */
import assert from "node:assert/strict";
import { join } from "node:path";
import { type TestContext, test } from "node:test";
import { oneLine } from "../../cli/format.ts";
import { openTerminal } from "../../cli/terminal.ts";
import { makeLake } from "../support/lake_of.ts";
import { ok, run, temporaryFolder } from "../support/support.ts";
import { validRow } from "../support/valid_row.ts";

/** Makes stderr look like a terminal. Returns what is written to it. */
function asTerminal(t: TestContext): string[] {
  const { stderr } = process;
  const isTTY = Object.getOwnPropertyDescriptor(stderr, "isTTY");
  t.after(() => (isTTY ? Object.defineProperty(stderr, "isTTY", isTTY) : Reflect.deleteProperty(stderr, "isTTY")));
  Object.defineProperty(stderr, "isTTY", { value: true, configurable: true });
  const written: string[] = [];
  t.mock.method(stderr, "write", (text: string) => written.push(text) > 0);
  t.mock.timers.enable({ apis: ["setInterval", "Date"] });
  return written;
}

test("the rate and the time left of a stage that resumes count only the rows of this run", (t) => {
  const written = asTerminal(t);
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

test("the tables are shown in the order of the configuration, whichever starts first", (t) => {
  const written = asTerminal(t);
  const progress = openTerminal({ quiet: false }).progress("clean");
  for (const table of ["user", "pin", "geo"] as const) progress.add(table, 1);
  t.mock.timers.tick(200);
  const shown = written.flatMap((text) => /^ {2}clean +(\w+) /.exec(text)?.[1] ?? []);
  progress.end();
  assert.deepEqual(shown, ["pin", "geo", "user"]);
});

test("the progress is erased before the line that says the stage is done", async (t) => {
  const folder = await temporaryFolder();
  t.after(() => folder.remove());
  const message = { partition: 0, offset: 0, postedAt: 1_700_000_000_000, key: Buffer.from("0") };
  await makeLake(join(folder.path, "lake"), {
    pin: [{ ...message, value: Buffer.from(JSON.stringify(validRow("pin", 0))) }],
  });
  const terminal = "data:text/javascript,process.stderr.isTTY=true";
  const { stderr } = ok(
    await run(["clean", "--rebuild", "--data", folder.path], { env: { NODE_OPTIONS: `--import=${terminal}` } }),
  );
  const [before, after] = stderr.split(/clean {3}1 message, .*\n/);
  assert.match(before ?? "", /clean pin /);
  assert.equal(after, "");
});

test("a line of a change is cut to the width of the terminal", (t) => {
  const { stdout } = process;
  for (const [name, value] of Object.entries({ isTTY: true, columns: 20 })) {
    const before = Object.getOwnPropertyDescriptor(stdout, name);
    t.after(() => (before ? Object.defineProperty(stdout, name, before) : Reflect.deleteProperty(stdout, name)));
    Object.defineProperty(stdout, name, { value, configurable: true });
  }
  assert.equal(oneLine("change  pin 7 updated (title)"), "change  pin 7 updat…");
  Object.defineProperty(stdout, "isTTY", { value: false, configurable: true });
  assert.equal(oneLine("change  pin 7 updated (title)"), "change  pin 7 updated (title)");
});

test("a wait that each table reports is shown once, and again in a later outage", (t) => {
  const written = asTerminal(t);
  const terminal = openTerminal({ quiet: false });
  const wait = () => terminal.notice({ fact: "waited", text: "Kafka is away" });
  for (let table = 0; table < 3; table++) wait();
  assert.deepEqual(written, ["Kafka is away\n"]);
  terminal.notice({ fact: "waited", text: "MySQL is away" });
  assert.equal(written.length, 2);
  t.mock.timers.tick(60_000);
  terminal.notice({ fact: "waited", text: "MySQL is away" });
  assert.equal(written.length, 3);
});
