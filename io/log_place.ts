/**
 * Places in a database's log, as the reader of the log finds them and checkpoints remember them.
 *
 * @module
 */

/** A place in the log of a server. */
export interface LogPlace {
  /** The file, such as `binlog.000014`. */
  file: string;
  /** Where a transaction begins in it, bytes. */
  position: number;
  /** How many rows of the table are done of the transaction that begins there. */
  skip: number;
  /**
   * When the server began the file, s since 1970: after RESET MASTER another has its name. Not there while nobody has
   * read the file.
   */
  made?: number;
  /** When the last event before the place was written, s since 1970, as far as any was read. */
  time?: number;
}

/** Says which of two places of one server's log comes first, as a number below, at or above 0. */
export function comparePlaces(a: LogPlace, b: LogPlace): number {
  return fileNumber(a.file) - fileNumber(b.file) || a.position - b.position || a.skip - b.skip;
}

/** The number at the end of a file's name. It grows by one with each file, beyond its six digits. */
export const fileNumber = (file: string): number => Number(/\d+$/.exec(file)?.[0] ?? 0);

/** Whether a value, as a checkpoint has it, is a place. */
export function isLogPlace(value: unknown): value is LogPlace {
  const { file, position, skip, made = 0, time = 0 } = (value ?? {}) as Partial<LogPlace>;
  return typeof file === "string" && [position, skip, made, time].every(Number.isSafeInteger);
}
