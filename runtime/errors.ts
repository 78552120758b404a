/**
 * Errors that decide the exit code.
 *
 * @module
 */

/** Wrong use or wrong settings: the program ends with exit code 2. */
export class UsageError extends Error {
  override name = "UsageError";
}
