/**
 * HTML templates that escape every value, except HTML made by a template.
 *
 * @module
 */
import { printable } from "../io/text.ts";

/** HTML made by {@link html}. */
export interface Html {
  readonly html: string;
}

/** A value in a template; null, undefined and false give no text. */
export type Piece = Html | string | number | null | undefined | false | readonly Piece[];

/** A template tag that escapes text and joins lists. */
export function html(parts: TemplateStringsArray, ...pieces: Piece[]): Html {
  return { html: parts.reduce((text, part, i) => text + write(pieces[i - 1]) + part) };
}

/** HTML from another source, which must be escaped already. */
export const asHtml = (text: string): Html => ({ html: text });

/** Text on one line, without control characters and characters that change the direction of text. */
export const oneLine = (text: string): string => printable(text.replace(/\s+/gu, " "));

const entities: Record<string, string> = { "&": "&amp;", "<": "&lt;", ">": "&gt;", '"': "&quot;", "'": "&#39;" };

function write(piece: Piece): string {
  if (piece === null || piece === undefined || piece === false) return "";
  if (Array.isArray(piece)) return piece.map(write).join("");
  if (typeof piece === "object") return (piece as Html).html;
  return oneLine(String(piece)).replace(/[&<>"']/g, (character) => entities[character] as string);
}
