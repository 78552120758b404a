/**
 * Limits a rate: a number per second, or one at a time with random pauses.
 *
 * @module
 */

import { setTimeout as sleep } from "node:timers/promises";

/** Waits until items are due. @returns how many, from 1 to `most` */
export type Pace = (most: number) => Promise<number>;

/** One at a time, with a pause of `real()` s (0 to 1) after each. */
export function pauses(real: () => number, signal: AbortSignal): Pace {
  let first = true;
  return async () => {
    if (!first) await sleep(real() * 1000, undefined, { signal });
    first = false;
    return 1;
  };
}

/** `rate` per second. A delay of over a second is not caught up. */
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
