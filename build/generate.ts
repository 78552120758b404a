/**
 * Writes the files that are computed from others: `npm run generate`.
 *
 * @module
 */

import { writeFileSync } from "node:fs";
import { kernelModule } from "./kernel.ts";
import { worldJson } from "./world.ts";

/** Each file with its content. */
export const generated = async (): Promise<Record<string, string>> => ({
  "io/row_kernel_bytes.ts": await kernelModule(),
  "report/world.json": worldJson(),
});

if (import.meta.filename === process.argv[1]) {
  for (const [file, content] of Object.entries(await generated()))
    writeFileSync(new URL(`../${file}`, import.meta.url), content);
}
