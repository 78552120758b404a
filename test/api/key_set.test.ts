/** The set of keys that a full run compares. */
import assert from "node:assert/strict";
import { test } from "node:test";
import { KeySet } from "../../api/key_set.ts";

test("a set of keys has what was added and not deleted, dense or sparse, of 53 bits and of 64", () => {
  const seed = Date.now() % 1_000_000;
  let state = seed;
  const below = (n: number) => {
    state = (Math.imul(state, 1_664_525) + 1_013_904_223) >>> 0;
    return state % n;
  };
  const bases = [0n, -70_000n, 2n ** 53n - 40_000n, -(2n ** 53n), 2n ** 63n, 65_536n * 9n];
  const set = new KeySet();
  const plain = new Set<bigint>();
  for (let i = 0; i < 40_000; i++) {
    const key = (bases[below(bases.length)] as bigint) + BigInt(below(90_000));
    // As some callers pass them: a number if it fits.
    const given = below(2) === 0 && key < 2n ** 53n && key > -(2n ** 53n) ? Number(key) : key;
    if (below(3) === 0) {
      set.delete(given);
      plain.delete(key);
    } else {
      set.add(given);
      plain.add(key);
    }
  }
  const keys = [...set.texts()];
  assert.deepEqual(keys.map(BigInt).sort(), [...plain].sort(), `repeat with seed ${seed}`);
  assert.equal(new Set(keys).size, keys.length);
});

test("a million consecutive keys take a bit each", () => {
  const before = process.memoryUsage().arrayBuffers;
  const set = new KeySet();
  for (let key = 0; key < 1_000_000; key++) set.add(key);
  assert.ok(process.memoryUsage().arrayBuffers - before < 200_000);
  for (let key = 0; key < 999_999; key++) set.delete(key);
  assert.deepEqual([...set.texts()], ["999999"]);
});
