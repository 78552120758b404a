/**
 * Whether the rows have changed since the last report.
 *
 * @module
 */

import { stat } from "node:fs/promises";
import { join } from "node:path";
import { tableNames } from "../io.ts";
import { paths } from "../lake/files.ts";

/** When the last report and the newest rows were written, ms since 1970; null where there are none. */
export interface ReportAge {
  at: number | null;
  rows_at: number | null;
}

const changedAt = (path: string): Promise<number> =>
  stat(path).then(
    ({ mtimeMs }) => mtimeMs,
    () => 0,
  );

/** Compares the last report with silver. Files appear in silver by a rename, which changes the time of their folder. */
export async function reportAge(lake: string): Promise<ReportAge> {
  const { gold, silver, deletes } = paths(lake);
  // The report writes matches.parquet first: rows that changed while it ran are newer than the report.
  const [page, first] = await Promise.all(
    ["report.html", "matches.parquet"].map((name) => changedAt(join(gold, name))),
  );
  const rows = await Promise.all(tableNames.flatMap((table) => [silver(table), deletes(table)]).map(changedAt));
  return {
    at: page && first ? Math.floor(Math.min(page, first)) : null,
    rows_at: Math.floor(Math.max(...rows)) || null,
  };
}
