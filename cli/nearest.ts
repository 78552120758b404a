/**
 * The known word that a misspelt one probably means.
 *
 * @module
 */

/** The nearest of the known words, if few enough of its letters differ. */
export function nearest(word: string, known: readonly string[]): string | undefined {
  const [near] = known
    .map((name) => ({ name, steps: distance(word, name) }))
    .filter(({ name, steps }) => steps <= Math.max(1, Math.floor(name.replace(/^-+/, "").length / 3)))
    .sort((a, b) => a.steps - b.steps);
  return near?.name;
}

/** How many letters must be added, left out, replaced or swapped to get from one word to another. */
function distance(a: string, b: string): number {
  const rows = [Array.from({ length: b.length + 1 }, (_, j) => j)];
  for (let i = 1; i <= a.length; i++) {
    const row = [i];
    for (let j = 1; j <= b.length; j++) {
      const at = (di: number, dj: number) =>
        (di === 0 ? row[j - dj] : rows[i - di]?.[j - dj]) ?? Number.POSITIVE_INFINITY;
      const isSwapped = i > 1 && j > 1 && a[i - 1] === b[j - 2] && a[i - 2] === b[j - 1];
      row[j] = Math.min(
        at(1, 0) + 1,
        at(0, 1) + 1,
        at(1, 1) + (a[i - 1] === b[j - 1] ? 0 : 1),
        isSwapped ? at(2, 2) + 1 : 99,
      );
    }
    rows.push(row);
  }
  return rows[a.length]?.[b.length] as number;
}
