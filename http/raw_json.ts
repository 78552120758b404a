/**
 * Splits JSON and keeps its parts unchanged: parsing and writing it would change numbers (`-0`, 20 digits) and drop
 * repeated keys.
 *
 * ```ts
 * const body = rawObject('{"data": {"ind": 12345678901234567890}}');
 * rawObject(body.get("data")).get("ind"); // "12345678901234567890"
 * ```
 *
 * @module
 */

/**
 * The members of a JSON object, each value as its text; the last of repeated names counts.
 *
 * The text must be valid JSON. A text that is not an object has no members.
 */
export function rawObject(text: string | undefined): Map<string, string> {
  const members = new Map<string, string>();
  if (text === undefined || !isObject(text)) return members;
  for (let at = skipBlanks(text, text.indexOf("{") + 1); text[at] !== "}"; ) {
    const nameEnd = skipString(text, at);
    const name = JSON.parse(text.slice(at, nameEnd)) as string;
    const begin = skipBlanks(text, skipBlanks(text, nameEnd) + 1 /* colon */);
    const end = skipValue(text, begin);
    members.set(name, text.slice(begin, end));
    at = skipBlanks(text, end);
    if (text[at] === ",") at = skipBlanks(text, at + 1);
  }
  return members;
}

/** The elements of a JSON array, each as its text; `undefined` if the text, which must be valid JSON, is not an array. */
export function rawArray(text: string | undefined): string[] | undefined {
  if (text === undefined || text[skipBlanks(text, 0)] !== "[") return undefined;
  const elements: string[] = [];
  for (let at = skipBlanks(text, text.indexOf("[") + 1); text[at] !== "]"; ) {
    const end = skipValue(text, at);
    elements.push(text.slice(at, end));
    at = skipBlanks(text, end);
    if (text[at] === ",") at = skipBlanks(text, at + 1);
  }
  return elements;
}

/** Whether a text, which must be valid JSON, is an object. */
export const isObject = (text: string): boolean => text[skipBlanks(text, 0)] === "{";

function skipBlanks(text: string, from: number): number {
  let at = from;
  for (let code = text.charCodeAt(at); code === 32 || code === 10 || code === 13 || code === 9; ) {
    code = text.charCodeAt(++at);
  }
  return at;
}

/** The place after the closing quote of the string that begins at `from`. */
function skipString(text: string, from: number): number {
  for (let at = from + 1; ; at++) {
    at = text.indexOf('"', at);
    let slashes = 0;
    while (text[at - 1 - slashes] === "\\") slashes++;
    if (slashes % 2 === 0) return at + 1;
  }
}

function skipValue(text: string, from: number): number {
  if (text[from] === '"') return skipString(text, from);
  let depth = 0;
  for (let at = from; at < text.length; at++) {
    const char = text[at];
    if (char === '"') at = skipString(text, at) - 1;
    else if (char === "{" || char === "[") depth++;
    else if (char === "}" || char === "]") {
      if (depth === 0) return at;
      if (--depth === 0) return at + 1;
    } else if (depth === 0 && (char === "," || char === " " || char === "\n" || char === "\r" || char === "\t")) {
      return at;
    }
  }
  return text.length;
}
