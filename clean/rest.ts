/**
 * How long `--follow` rests after a round, so that rewriting silver takes at most half of the time.
 *
 * @module
 */

import { setTimeout as sleep } from "node:timers/promises";
import { step } from "../runtime/steps.ts";

/** Pause when there was nothing new, ms. */
const idlePause = 300;

/** What a round of `--follow` did. */
export interface Round {
  /** The most batches that a table took; 0 where nothing was new. */
  batches: number;
  /** How long blocks of silver that were there already were written anew, ms. */
  rewriting: number;
}

/**
 * The pause after a round, ms. A block costs as much to rewrite for one new row as for a thousand, so rows that are
 * waited for cost nothing more. Where a round took several batches, another one holds no more rows a block.
 */
export function restAfter({ batches, rewriting }: Round): number {
  if (batches === 0) return idlePause;
  return batches === 1 ? rewriting : 0;
}

/** Waits for {@link restAfter}; a stop ends it at once, as an error. */
export async function rest(round: Round, signal: AbortSignal): Promise<void> {
  const pause = restAfter(round);
  if (round.rewriting > 0) step("resting", `${Math.round(pause)} ms`);
  await sleep(pause, undefined, { signal });
}

/** Measures how long at least one of some works that go on side by side is being done, ms by `now`. */
export function stopwatch(now = () => performance.now()) {
  let [running, since, total] = [0, 0, 0];
  return {
    async time<T>(work: Promise<T>): Promise<T> {
      if (running++ === 0) since = now();
      try {
        return await work;
      } finally {
        if (--running === 0) total += now() - since;
      }
    },
    /** What was measured since the last call, when nothing is being done. */
    take(): number {
      const taken = total;
      total = 0;
      return taken;
    },
  };
}
