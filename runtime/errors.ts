/**
 * The error class that decides the exit code, and the messages of file errors.
 *
 * @module
 */

/** Wrong arguments or settings; the exit code is 2. */
export class UsageError extends Error {
  override name = "UsageError";
}

/** Why a file cannot be read, for a message. */
export function fileTrouble(error: unknown, path: string): string {
  const { code, message } = error as NodeJS.ErrnoException;
  return code === "ENOENT" ? `the file "${path}" does not exist` : message;
}
