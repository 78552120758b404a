/**
 * What the checks of `doctor` find.
 *
 * @module
 */

/** What one check found. */
export interface Finding {
  check: string;
  /** `failed`: a command will fail; `warned`: it may; `skipped`: it could not be looked at. */
  state: "ok" | "warned" | "failed" | "skipped";
  text: string;
  /** What to do. */
  remedy?: string;
}

/** Makes the findings of one check; an error is one that failed. */
export type Check = (
  check: string,
  look: () => Promise<Omit<Finding, "check"> | Omit<Finding, "check">[]>,
) => Promise<void>;
