import assert from "node:assert/strict";
import { type TestContext, test } from "node:test";
import { openTerminal } from "../../cli/terminal.ts";

/** What the progress of `clean` shows on a terminal after some facts. */
function shown(t: TestContext, { follow }: { follow: boolean }, facts: (progress: Progress) => void): string {
  t.mock.timers.enable({ apis: ["setInterval"] });
  const wasTerminal = process.stderr.isTTY;
  process.stderr.isTTY = true;
  let text = "";
  const write = t.mock.method(process.stderr, "write", (line: string) => {
    text += line;
    return true;
  });
  try {
    const progress = openTerminal({ quiet: false }).progress("clean", { unit: "messages", follow });
    facts(progress);
    t.mock.timers.tick(200);
    progress.end();
  } finally {
    write.mock.restore();
    process.stderr.isTTY = wasTerminal;
    t.mock.timers.reset();
  }
  return text;
}
type Progress = ReturnType<ReturnType<typeof openTerminal>["progress"]>;

test("a table with nothing to do is up to date, and waits with --follow", (t) => {
  const nothing = (progress: Progress) => {
    progress.set("pin", 0, 0);
    progress.finish("pin");
  };
  assert.match(shown(t, { follow: true }, nothing), /clean pin +up to date, waiting\n/);
  assert.match(shown(t, { follow: false }, nothing), /clean pin +up to date\n/);
});

test("a followed table that is caught up says what it did, and that it waits", (t) => {
  const caughtUp = (progress: Progress) => {
    progress.set("geo", 0, 7);
    progress.add("geo", 7);
    progress.finish("geo");
  };
  assert.match(shown(t, { follow: true }, caughtUp), /clean geo +7 messages, up to date, waiting\n/);
  assert.match(shown(t, { follow: false }, caughtUp), /clean geo .*7 of 7 messages/);
});
