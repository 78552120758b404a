/**
 * Entry of the threads of the executable: posts a table, or lands.
 *
 * @module
 */
import { workerData } from "node:worker_threads";

const { kind } = workerData as { kind: "post" | "land" };
void (kind === "post" ? import("../api/table_thread.ts") : import("../clean/land.ts"));
