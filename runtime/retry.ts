/**
 * Retries while a service is unavailable, and work that a retry must not overlap.
 *
 * @module
 */
import { setTimeout as sleep } from "node:timers/promises";

/** Options of {@link retry}. */
export interface RetryOptions {
  /** Time from the first error until it gives up, ms. Time before the first error, as when frozen, does not count. */
  waitMs: number;
  signal: AbortSignal;
  /** Whether a retry may succeed after an error; other errors are rethrown immediately. */
  isTransient: (error: unknown) => boolean;
  /** Called once, with the reason of the wait. */
  onWait: (text: string) => void;
}

/** Retries an action while a service is unavailable. It does not end an attempt that hangs, so each needs a timeout. */
export async function retry<T>(action: () => Promise<T>, options: RetryOptions): Promise<T> {
  const { waitMs, signal, isTransient, onWait } = options;
  const begun = Date.now();
  let since: number | undefined;
  let reported = false;
  for (let delay = 250; ; delay = Math.min(delay * 2, 3_000)) {
    signal.throwIfAborted();
    try {
      return await action();
    } catch (error) {
      signal.throwIfAborted();
      since ??= Date.now();
      if (!isTransient(error) || Date.now() - since + delay > waitMs) throw error;
      if (!reported && Date.now() - begun >= 500) {
        reported = true;
        const { message } = error as Error;
        const waiting = message.endsWith("?") ? " Waiting" : "; waiting";
        onWait(`${message}${waiting} up to ${Math.round(waitMs / 1000)} s for it`);
      }
      // Random pauses, so that two programs that conflict do not retry in step.
      await sleep(delay * (0.5 + Math.random()), undefined, { signal });
    }
  }
}

/**
 * Waits for all to settle, then rethrows the first error, so that a retry never runs beside work that writes the same
 * files.
 */
export async function allOf<T extends unknown[]>(works: [...{ [K in keyof T]: Promise<T[K]> }]): Promise<T> {
  await Promise.allSettled(works);
  return (await Promise.all(works)) as T;
}
