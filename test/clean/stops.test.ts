import assert from "node:assert/strict";
import { mkdir } from "node:fs/promises";
import { join } from "node:path";
import { after, before, test } from "node:test";
import { cleanLanded, rebuild } from "../../clean/rebuild.ts";
import type { BronzeFile } from "../../lake/bronze.ts";
import { type Step, steps } from "../../runtime/steps.ts";
import { landMessages, makeLake, readDeletes, readRejects, readSilver } from "../support/lake_of.ts";
import type { Message } from "../support/oracle.ts";
import { sameList } from "../support/same_list.ts";
import { temporaryFolder } from "../support/support.ts";

let folder: Awaited<ReturnType<typeof temporaryFolder>>;
before(async () => {
  folder = await temporaryFolder();
});
after(() => folder.remove());

/** Random whole numbers below a bound, by a seed. */
function dice(seed: number): (below: number) => number {
  let state = seed;
  return (below) => {
    state = (Math.imul(state, 1_103_515_245) + 12_345) & 0x7fffffff;
    return (state >> 8) % below;
  };
}

/** Users of three partitions with repeated keys in several blocks; some are deletes, some are rejects. */
function someMessages(roll: (below: number) => number): Message[] {
  const next = [0, 0, 0];
  return Array.from({ length: 150 }, (_, i) => {
    const partition = roll(3);
    const offset = next[partition] as number;
    next[partition] = offset + 1 + roll(2);
    const ind = roll(3) * 65_536 + roll(20);
    const row = { ind, first_name: `A${i}`, last_name: null, age: roll(30) === 0 ? "old" : 21, date_joined: null };
    const value = roll(4) === 0 ? null : Buffer.from(JSON.stringify(row));
    return { partition, offset, postedAt: 1_700_000_000_000 + i, key: Buffer.from(String(ind)), value };
  });
}

/** Groups bronze files at random, in the order of each partition. */
function grouped(files: BronzeFile[], roll: (below: number) => number): BronzeFile[][] {
  const queues = new Map<number, BronzeFile[]>();
  for (const file of files) queues.set(file.partition, [...(queues.get(file.partition) ?? []), file]);
  const groups: BronzeFile[][] = [];
  while (queues.size > 0) {
    const group: BronzeFile[] = [];
    for (const [partition, queue] of queues) {
      group.push(...queue.splice(0, roll(4)));
      if (queue.length === 0) queues.delete(partition);
    }
    if (group.length > 0) groups.push(group);
  }
  return groups;
}

test("stops at any rename, and other groups of files, leave silver, rejects and ledger unchanged", async (t) => {
  const seed = Number(process.env.SEED ?? Math.floor(Math.random() * 1e6));
  t.diagnostic(`repeat with SEED=${seed}`);
  for (let round = 0; round < 2; round++) {
    const roll = dice(seed + round);
    const messages = { user: someMessages(roll) };
    const whole = join(folder.path, `whole-${round}`);
    await landMessages(whole, messages, { perFile: 12 });
    const wanted = await rebuild({ lake: whole, signal: new AbortController().signal, onFact: () => {} });
    const lake = join(folder.path, `stopped-${round}`);
    await landMessages(lake, messages, { perFile: 12 });
    let stops = 0;
    for (let done = false; !done; ) {
      const stop = new AbortController();
      // At least four stops: a round has more than eight renames.
      let left = 1 + roll(stops < 4 ? 2 : 5);
      const onStep = (message: unknown) => {
        if ((message as Step).name === "renamed" && --left === 0) stop.abort();
      };
      steps.subscribe(onStep);
      const batches = (files: BronzeFile[]) => grouped(files, roll);
      const { ledger } = await cleanLanded({ lake, signal: stop.signal, onFact: () => {}, batches })
        .catch((error: Error) => {
          if (!stop.signal.aborted) throw error;
          return { ledger: [] };
        })
        .finally(() => steps.unsubscribe(onStep));
      done = !stop.signal.aborted;
      if (done) assert.deepEqual(ledger, wanted.ledger);
      else stops++;
    }
    assert.ok(stops > 3, `${stops} stops`);
    sameList(await readSilver(lake, "user"), await readSilver(whole, "user"));
    sameList(await readDeletes(lake, "user"), await readDeletes(whole, "user"));
    sameList(await readRejects(lake, "user"), await readRejects(whole, "user"));
  }
});

test("folders named like columns in the lake's path change nothing", async () => {
  const messages = { user: someMessages(dice(7)) };
  const plain = join(folder.path, "plain");
  const named = join(folder.path, "ind=5", "_offset=3", "age=8", "lake");
  await mkdir(named, { recursive: true });
  const wanted = await makeLake(plain, messages);
  assert.deepEqual((await makeLake(named, messages)).ledger, wanted.ledger);
  sameList(await readSilver(named, "user"), await readSilver(plain, "user"));
  sameList(await readRejects(named, "user"), await readRejects(plain, "user"));
  const again = await rebuild({ lake: named, signal: new AbortController().signal, onFact: () => {} });
  assert.deepEqual(again.ledger, wanted.ledger);
});
