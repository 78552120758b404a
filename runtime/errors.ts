/**
 * The error class that decides the exit code.
 *
 * @module
 */

/** Wrong arguments or settings; the exit code is 2. */
export class UsageError extends Error {
  override name = "UsageError";
}
