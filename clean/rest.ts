/**
 * How long `--follow` rests after a round, so that rewriting silver takes at most half of the time.
 *
 * @module
 */

import { setTimeout as sleep } from "node:timers/promises";
import { step } from "../runtime/steps.ts";

/** Pause when there was nothing new, ms. */
const idlePause = 300;

/** The work of one round of `--follow`. */
export interface Round {
  /** The greatest number of batches of a table; 0 if nothing was new. */
  batches: number;
  /** Time spent rewriting existing silver blocks, ms. */
  rewriting: number;
}

/**
 * The pause after a round, ms. Rewriting a block costs as much for one new row as for a thousand, so waiting for more
 * rows saves work. After a round of several batches it would save nothing: the next batch is full anyway.
 */
export function restAfter({ batches, rewriting }: Round): number {
  if (batches === 0) return idlePause;
  return batches === 1 ? rewriting : 0;
}

/** Waits for {@link restAfter}. @throws immediately on a stop */
export async function rest(round: Round, signal: AbortSignal): Promise<void> {
  const pause = restAfter(round);
  if (round.rewriting > 0) step("resting", `${Math.round(pause)} ms`);
  await sleep(pause, undefined, { signal });
}

/** Measures the time during which at least one of several concurrent tasks runs, ms by `now`. */
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
    /** The time since the last call. Call it while nothing runs. */
    take(): number {
      const taken = total;
      total = 0;
      return taken;
    },
  };
}
