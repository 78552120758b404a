/**
 * What the checks of `doctor` find.
 *
 * @module
 */

import type { MysqlSettings } from "../db_conn.ts";
import type { KafkaSettings } from "../kafka/settings.ts";
import type { ServiceName } from "../local/state.ts";

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

/** Where the services are, as far as they run. */
export interface FoundSettings {
  mysql?: MysqlSettings;
  kafka?: KafkaSettings;
  /** Services of the program's own that do not run. */
  own: ServiceName[];
}
