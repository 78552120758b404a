/**
 * Retries while a service is unavailable.
 *
 * @module
 */
import { setTimeout as sleep } from "node:timers/promises";

/** How long, and for what, {@link retry} waits. */
export interface RetryOptions {
  /** Give up so long after the first error, ms: a program that was itself frozen has lost no time. */
  waitMs: number;
  signal: AbortSignal;
  /** Whether an error may be gone at the next try; others are thrown at once. */
  isTransient: (error: unknown) => boolean;
  /** Told once, with what is waited for. */
  onWait: (text: string) => void;
}

/** Tries again and again while a service is away; it does not end a try that hangs, so each must have a time-out. */
export async function retry<T>(action: () => Promise<T>, options: RetryOptions): Promise<T> {
  const { waitMs, signal, isTransient, onWait } = options;
  const begun = Date.now();
  let since: number | undefined;
  let told = false;
  for (let delay = 250; ; delay = Math.min(delay * 2, 3_000)) {
    signal.throwIfAborted();
    try {
      return await action();
    } catch (error) {
      signal.throwIfAborted();
      since ??= Date.now();
      if (!isTransient(error) || Date.now() - since + delay > waitMs) throw error;
      if (!told && Date.now() - begun >= 500) {
        told = true;
        onWait(`${(error as Error).message}; waiting up to ${Math.round(waitMs / 1000)} s for it`);
      }
      // Uneven pauses: two programs that disturb each other must not keep in step.
      await sleep(delay * (0.5 + Math.random()), undefined, { signal });
    }
  }
}
