/**
 * Text for people: counts, durations and sizes, with control characters replaced.
 *
 * @module
 */

/** Makes text safe to show: replaces control characters, which could move the cursor or change colours. */
export const printable = (text: string): string =>
  text.replace(/[\p{Cc}\u2028\u2029\u202a-\u202e\u2066-\u2069]/gu, "\ufffd");

/** The sum of `value` over the items; by default of the items themselves. */
export const sum = <T>(items: readonly T[], value: (item: T) => number = Number): number =>
  items.reduce((total, item) => total + value(item), 0);

/** Made at the first use, which takes 16 ms. */
let grouped: Intl.NumberFormat | undefined;

/** A number with thousands separators. Text keeps digits that a JS number cannot hold. */
export function count(value: number | string | null | undefined): string {
  if (typeof value !== "number") return (value ?? "").replace(/\B(?=(\d{3})+$)/g, ",");
  grouped ??= new Intl.NumberFormat("en-US", { maximumFractionDigits: 20 });
  return grouped.format(value);
}

/** A count with its noun: "1 post", "2 posts". */
export const some = (n: number, one: string, several = `${one}s`): string => `${count(n)} ${n === 1 ? one : several}`;

/** Formats a duration in ms. */
export function duration(ms: number): string {
  const seconds = ms / 1000;
  if (seconds < 10) return `${seconds.toFixed(1)} s`;
  if (seconds < 100) return `${Math.round(seconds)} s`;
  const whole = Math.round(seconds);
  const minutes = Math.floor(whole / 60);
  return minutes < 100 ? `${minutes} min ${whole % 60} s` : `${(minutes / 60).toFixed(1)} h`;
}

/** Formats a number of bytes. */
export function byteCount(bytes: number): string {
  const units = ["bytes", "kB", "MB", "GB", "TB"];
  let at = 0;
  let size = bytes;
  for (; size >= 999.5 && at < units.length - 1; at++) size /= 1000;
  return `${at > 0 && size < 9.95 ? size.toFixed(1) : Math.round(size)} ${units[at]}`;
}
