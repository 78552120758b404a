import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { test } from "node:test";
import { byteCount, count, duration, some } from "../../io/text.ts";
import { shellWord } from "../../runtime/program.ts";

test("duration() never shows 60 seconds", () => {
  const shown = [9_940, 99_400, 119_400, 119_600, 179_600, 6_000_000].map(duration);
  assert.deepEqual(shown, ["9.9 s", "99 s", "1 min 59 s", "2 min 0 s", "3 min 0 s", "1.7 h"]);
});

test("counts have separators and the noun's number, and keep digits that no JS number holds", () => {
  assert.deepEqual(
    [some(1, "more row"), some(2, "fewer row"), some(0, "post")],
    ["1 more row", "2 fewer rows", "0 posts"],
  );
  assert.equal(some(1_234, "entry", "entries"), "1,234 entries");
  assert.equal(count("12345678901234567890"), "12,345,678,901,234,567,890");
  assert.deepEqual([999, 9_949, 9_951, 999_600].map(byteCount), ["999 bytes", "9.9 kB", "10 kB", "1.0 MB"]);
});

test("a shell reads shellWord() as the text", () => {
  for (const text of ["data", "my data", "$HOME", "`id`", "it's", 'a"b', "\\", "", "*", "~", "a;b", "é"]) {
    const { stdout } = spawnSync("sh", ["-c", `printf %s ${shellWord(text)}`], { encoding: "utf8" });
    assert.equal(stdout, text);
  }
});
