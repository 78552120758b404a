/**
 * The DuckDB query that reads bronze files.
 *
 * @module
 */

import { type BronzeFile, bronzeColumns, largeMessage } from "./bronze.ts";
import { literals } from "./duckdb.ts";
import { fileSize } from "./files.ts";

const bronzeTypes = `{${Object.entries(bronzeColumns).map(([name, type]) => `${name}: '${type}'`)}}`;

/** A query for the lines of bronze files: no quotes, no escapes, an empty field is NULL. */
export async function bronzeQuery(files: BronzeFile[]): Promise<string> {
  const sizes = await Promise.all(files.map((file) => fileSize(file.path)));
  // Base64 adds a third to a key and a value of `largeMessage` bytes in all.
  const usual = 2 * largeMessage;
  const read = (some: BronzeFile[], line: number) =>
    `SELECT * FROM read_csv(${literals(some.map(({ path }) => path))}, columns = ${bronzeTypes}, auto_detect = false,
      hive_partitioning = false, delim = '\\t', quote = '', escape = '', header = false, new_line = '\\n', strict_mode = true, max_line_size = ${line}, buffer_size = ${2 * line})`;
  const small = files.filter((file, i) => file.messages !== 1 || (sizes[i] as number) <= usual);
  const large = files.filter((file) => !small.includes(file));
  const parts = small.length > 0 ? [read(small, usual)] : [];
  for (const file of large) parts.push(read([file], sizes[files.indexOf(file)] as number));
  return parts.join(" UNION ALL ");
}
