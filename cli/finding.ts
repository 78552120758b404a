/**
 * The results of the checks of `doctor`.
 *
 * @module
 */

/** The result of one check. */
export interface Finding {
  check: string;
  /** `failed`: a command will fail; `warned`: it may; `skipped`: not checked. */
  state: "ok" | "warned" | "failed" | "skipped";
  text: string;
  /** What to do. */
  remedy?: string;
}

/** Runs one check; an error is a failed one. */
export type Check = (
  check: string,
  look: () => Promise<Omit<Finding, "check"> | Omit<Finding, "check">[]>,
) => Promise<void>;
