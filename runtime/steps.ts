/**
 * Trace points of posting and publishing, on a diagnostics channel; the fault tests stop the program at them.
 *
 * @module
 */
import { channel } from "node:diagnostics_channel";

/** A trace point: `committing pin`, `renamed /lake/silver/pin/0000.parquet`. */
export interface Step {
  name: string;
  subject: string;
}

/** The channel of the trace points; no message is built without a subscriber. */
export const steps = channel("pinterest-pipeline:step");

/** Publishes that a trace point was reached. */
export function step(name: string, subject: string): void {
  if (steps.hasSubscribers) steps.publish({ name, subject } satisfies Step);
}
