import assert from "node:assert/strict";
import { test } from "node:test";
import { rest, restAfter, stopwatch } from "../../clean/rest.ts";

test("after a round that rewrote blocks, --follow rests as long as that took", () => {
  assert.equal(restAfter({ batches: 1, rewriting: 4_000 }), 4_000);
  assert.equal(restAfter({ batches: 1, rewriting: 0 }), 0);
});

test("after several batches --follow does not rest, because larger rounds would save nothing", () => {
  assert.equal(restAfter({ batches: 2, rewriting: 4_000 }), 0);
});

test("after a round without messages, --follow polls again after a moment", () => {
  const pause = restAfter({ batches: 0, rewriting: 0 });
  assert.ok(pause >= 100 && pause <= 500, `${pause} ms`);
});

test("a stop ends a rest immediately", async () => {
  const stop = new AbortController();
  const resting = rest({ batches: 1, rewriting: 2 ** 30 }, stop.signal);
  stop.abort(new Error("Stopped"));
  await assert.rejects(resting, { name: "AbortError" });
});

test("concurrent tasks are measured once, also a failing one", async () => {
  let now = 0;
  const watch = stopwatch(() => now);
  const ends: (() => void)[] = [];
  const work = () => new Promise<void>((resolve) => ends.push(resolve));
  const failing = watch.time(work().then(() => Promise.reject(new Error("Failed"))));
  const other = watch.time(work());
  now = 10;
  ends[0]?.();
  await assert.rejects(failing, /Failed/);
  now = 30;
  ends[1]?.();
  await other;
  now = 50;
  const third = watch.time(Promise.resolve());
  now = 57;
  await third;
  assert.equal(watch.take(), 37);
  assert.equal(watch.take(), 0);
});
