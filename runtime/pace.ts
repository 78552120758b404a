/**
 * How fast something is made: so many a second, or one after another with uneven pauses.
 *
 * @module
 */

import { setTimeout as sleep } from "node:timers/promises";

/** Tells how many are due, at least one and at most the number given; waits until then. */
export type Pace = (most: number) => Promise<number>;

/** One at a time, then a pause of 0 to 1 s, as `real` (0 to 1) has it. */
export function pauses(real: () => number, signal: AbortSignal): Pace {
  let first = true;
  return async () => {
    if (!first) await sleep(real() * 1000, undefined, { signal });
    first = false;
    return 1;
  };
}

/** As many per second as `rate` says; time that was lost by more than a second is not made up for. */
export function steadily(rate: number, signal: AbortSignal): Pace {
  let next = performance.now();
  return async (most) => {
    const early = next - performance.now();
    if (early > 0) await sleep(early, undefined, { signal });
    signal.throwIfAborted();
    const now = performance.now();
    next = Math.max(next, now - 1000);
    const due = Math.min(most, 1 + Math.floor(((now - next) * rate) / 1000));
    next += (due * 1000) / rate;
    return due;
  };
}
