/**
 * Compares long lists and shows the first difference only: node:assert prints both lists whole, tens of thousands of
 * lines.
 *
 * @module
 */
import assert from "node:assert/strict";
import { inspect, isDeepStrictEqual } from "node:util";

/** Fails if two lists differ, and shows their lengths and the first difference, cut to 200 characters. */
export function sameList(found: readonly unknown[], wanted: readonly unknown[], what = "the list"): void {
  const length = Math.max(found.length, wanted.length);
  for (let i = 0; i < length; i++) {
    if (i < found.length && i < wanted.length && isDeepStrictEqual(found[i], wanted[i])) continue;
    const lengths = `${found.length} elements, expected ${wanted.length}`;
    assert.fail(`${what} has ${lengths}; the first difference:\n${difference(`[${i}]`, found[i], wanted[i])}`);
  }
}

const isPlain = (value: unknown): value is Record<string, unknown> => typeof value === "object" && value !== null;

/** The first difference inside two values that differ. */
function difference(path: string, found: unknown, wanted: unknown): string {
  if (isPlain(found) && isPlain(wanted)) {
    const names = [...new Set([...Object.keys(found), ...Object.keys(wanted)])];
    const name = names.find((key) => !isDeepStrictEqual(found[key], wanted[key]));
    if (name !== undefined) return difference(`${path}.${name}`, found[name], wanted[name]);
  }
  let from = 0;
  if (typeof found === "string" && typeof wanted === "string")
    while (found[from] === wanted[from] && from < found.length) from++;
  const shown = (value: unknown) => {
    const text = typeof value === "string" ? value.slice(Math.max(0, from - 20), from + 200) : value;
    return inspect(text, { breakLength: Number.POSITIVE_INFINITY, maxStringLength: 200 }).slice(0, 200);
  };
  const at = from > 20 ? ` from character ${from - 20}` : "";
  return `  ${path}${at}\n  found:    ${shown(found)}\n  expected: ${shown(wanted)}`;
}
