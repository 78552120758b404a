/**
 * Compiles `io/row_kernel.wat` to `io/row_kernel_bytes.ts`: `npm run generate`.
 *
 * @module
 */

import { readFileSync } from "node:fs";
import wabt from "wabt";

/** A module with the compiled kernel as text. */
export async function kernelModule(): Promise<string> {
  const source = "row_kernel.wat";
  const text = readFileSync(new URL(`../io/${source}`, import.meta.url), "utf8");
  const parsed = (await wabt()).parseWat(source, text, { simd: true, bulk_memory: true });
  const base64 = Buffer.from(parsed.toBinary({}).buffer).toString("base64");
  return `/**
 * \`${source}\`, compiled to WebAssembly by \`npm run generate\`: do not edit.
 *
 * @module
 */
export const rowKernel =
  "${base64}";
`;
}
