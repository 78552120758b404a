/**
 * The named steps of posting and publishing, on a diagnostics channel: tests subscribe to it to stop the program there.
 *
 * @module
 */
import { channel } from "node:diagnostics_channel";

/** What is published: `committing pin`, `renamed /lake/silver/pin/0000.parquet`. */
export interface Step {
  name: string;
  subject: string;
}

/** Where each step is published; nothing is built while nobody subscribes. */
export const steps = channel("pinterest-pipeline:step");

/** Says that a step has been reached. */
export function step(name: string, subject: string): void {
  if (steps.hasSubscribers) steps.publish({ name, subject } satisfies Step);
}
