/**
 * Entry of the supervisor's process: `supervise.ts FOLDER`.
 *
 * @module
 */
import { supervise } from "./supervisor.ts";

await supervise(process.argv[2] ?? "");
