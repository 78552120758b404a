/**
 * Text for people: counts, durations, and control characters made harmless.
 *
 * @module
 */

/** Text made safe to show: control characters, which could move the cursor or change colours, are replaced. */
export const printable = (text: string): string =>
  text.replace(/[\p{Cc}\u2028\u2029\u202a-\u202e\u2066-\u2069]/gu, "\ufffd");

/** A whole number with thousands separated. */
export const count = (n: number): string => n.toLocaleString("en-US");

/** So many of a thing: "1 post", "2 posts". */
export const some = (n: number, thing: string): string => `${count(n)} ${thing}${n === 1 ? "" : "s"}`;

/** A time span for people, from ms. */
export function duration(ms: number): string {
  const seconds = ms / 1000;
  if (seconds < 10) return `${seconds.toFixed(1)} s`;
  if (seconds < 100) return `${Math.round(seconds)} s`;
  const minutes = Math.floor(seconds / 60);
  return minutes < 100 ? `${minutes} min ${Math.round(seconds % 60)} s` : `${(minutes / 60).toFixed(1)} h`;
}
