/**
 * Writes the files that are computed from others: `npm run generate`.
 *
 * @module
 */

import { writeFileSync } from "node:fs";
import { worldJson } from "./world.ts";

/** Each file with its content. */
export const generated = (): Record<string, string> => ({
  "report/world.json": worldJson(),
});

if (import.meta.filename === process.argv[1]) {
  for (const [file, content] of Object.entries(generated()))
    writeFileSync(new URL(`../${file}`, import.meta.url), content);
}
