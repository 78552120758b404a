/**
 * Places in the binary log, which checkpoints store.
 *
 * @module
 */

/** A place in the binary log of a server. */
export interface LogPlace {
  /** The file, such as `binlog.000014`. */
  file: string;
  /** Where a transaction begins in it, bytes. */
  position: number;
  /** How many rows of the table in the transaction that begins there are done. */
  skip: number;
  /**
   * When the server began the file, s since 1970: after RESET MASTER another file has the same name. Missing until the
   * file was read.
   */
  made?: number;
  /** When the last event before the place was written, s since 1970; missing if none was read. */
  time?: number;
}

/** Compares two places in the log of one server: a negative number if `a` comes first, 0 if they are equal. */
export function comparePlaces(a: LogPlace, b: LogPlace): number {
  return fileNumber(a.file) - fileNumber(b.file) || a.position - b.position || a.skip - b.skip;
}

/** The number at the end of a file's name. It grows by one with each file, also beyond six digits. */
export const fileNumber = (file: string): number => Number(/\d+$/.exec(file)?.[0] ?? 0);

/** Whether a value from a checkpoint is a place. */
export function isLogPlace(value: unknown): value is LogPlace {
  const { file, position, skip, made = 0, time = 0 } = (value ?? {}) as Partial<LogPlace>;
  return typeof file === "string" && [position, skip, made, time].every(Number.isSafeInteger);
}
