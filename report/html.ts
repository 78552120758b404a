/**
 * HTML from templates: what is put into one is escaped, unless it is HTML made by one.
 *
 * @module
 */
import { printable } from "../io/text.ts";

/** HTML made by {@link html}. */
export interface Html {
  readonly html: string;
}

/** What a template takes; nothing comes of null, undefined and false. */
export type Piece = Html | string | number | null | undefined | false | readonly Piece[];

/** A template tag: pieces of text are escaped, lists joined. */
export function html(parts: TemplateStringsArray, ...pieces: Piece[]): Html {
  return { html: parts.reduce((text, part, i) => text + write(pieces[i - 1]) + part) };
}

/** HTML that comes from elsewhere and is known to be escaped. */
export const asHtml = (text: string): Html => ({ html: text });

/** Text on one line, without characters that steer a terminal or turn the direction of what follows. */
export const oneLine = (text: string): string => printable(text.replace(/\s+/gu, " "));

const entities: Record<string, string> = { "&": "&amp;", "<": "&lt;", ">": "&gt;", '"': "&quot;", "'": "&#39;" };

function write(piece: Piece): string {
  if (piece === null || piece === undefined || piece === false) return "";
  if (Array.isArray(piece)) return piece.map(write).join("");
  if (typeof piece === "object") return (piece as Html).html;
  return oneLine(String(piece)).replace(/[&<>"']/g, (character) => entities[character] as string);
}
