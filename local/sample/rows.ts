/**
 * Generates the rows of the sample data, with all the dirt of the original in its proportions (spec, section 1).
 *
 * @module
 */
import type { Row, Table } from "../../io.ts";
import { Random } from "../../runtime/random.ts";
import { categories, countries, lists, posters, sentences, type Template, titles } from "./words.ts";

/** Posts of the original: one block per category. After them the categories repeat. */
export const sampleSize = 11_154;

/** One row of the sample: the text of each column, as MySQL returns it. */
export function sampleRow(table: SampleTable, index: number): Row {
  return makers[table](index);
}

const makers = { pin: pinRow, geo: geoRow, user: userRow } satisfies {
  [T in Table]?: (index: number) => Row;
};

/** A table with sample rows, that is with a generator. */
export type SampleTable = keyof typeof makers;
export const sampleTables = Object.keys(makers) as SampleTable[];

/** Constant, so that a later load adds to the same rows. */
const seed = 1;

/** Random numbers that depend on the arguments only. */
function randomOf(subject: number, index: number): Random {
  let a = 0x9e3779b9;
  for (let i = 0; i < 3; i++) {
    a ^= i === 0 ? seed : i === 1 ? subject : index;
    a = Math.imul(a ^ (a >>> 16), 0x85ebca6b); // finalizer of murmur3
    a = Math.imul(a ^ (a >>> 13), 0xc2b2ae35);
    a ^= a >>> 16;
  }
  return new Random(a);
}

function pinRow(index: number): Row {
  const r = randomOf(1, index);
  const number = Math.floor(((index % sampleSize) * categories.length) / sampleSize);
  const category = categories[number] as (typeof categories)[number];

  // One number decides all faults of a post, so that a row has several at once, as in the original. It steps by the
  // golden ratio and is not random, so that any few thousand consecutive rows have the proportions within a row or two.
  const fault = (Math.imul(index + seed, 0x9e3779b1) >>> 0) / 2 ** 32;
  const noUser = fault < 0.008;
  const story = fault < 0.07;
  const noDescription = fault >= 0.07 && fault < 0.086;
  const video = fault >= 0.08 && fault < 0.11;
  const noTags = noUser || (fault >= 0.03 && fault < 0.036);
  const noImage = noUser || (fault >= 0.033 && fault < 0.048);

  const comma = r.chance(0.01) ? ", " : ",";
  let tags = r.pick(category.tags);
  for (let more = 4 + r.below(9); more > 0; more--) tags += comma + r.pick(category.tags);
  const image = hex(r);
  const folder = `${image.slice(0, 2)}/${image.slice(2, 4)}/${image.slice(4, 6)}`;
  const person = poster(number * 3_000 + r.low(3_000));
  return [
    String(index),
    uuid(r),
    noUser ? "No Title Data Available" : index === emptyTitle ? "" : pinTitle(r, category.things),
    story
      ? "No description available Story format"
      : noDescription
        ? "No description available"
        : description(r, category.things, 0.36 / 0.914),
    noUser ? "User Info Error" : r.chance(0.02) ? r.pick(blanks)(person.name) : person.name,
    noUser ? "User Info Error" : person.followers,
    noTags ? "N,o, ,T,a,g,s, ,A,v,a,i,l,a,b,l,e" : tags,
    story ? "multi-video(story page format)" : video ? "video" : "image",
    noImage
      ? "Image src error."
      : video
        ? `https://i.pinimg.com/videos/thumbnails/originals/${folder}/${image}.0000001.jpg`
        : `https://i.pinimg.com/originals/${folder}/${image}.jpg`,
    noImage ? "0" : "1",
    `Local save in /data/${category.name}`,
    category.name,
  ];
}

/** The one post whose title is empty. */
const emptyTitle = 777;

const longTitle = 199;
const longPoster = 266; // without the outer blanks

function pinTitle(r: Random, things: readonly string[]): string {
  let text = write(r.pick(titles), r, things);
  if (r.chance(0.06)) text = insert(text, r);
  if (!r.chance(0.002)) return text;
  while (text.length < longTitle) text += ` | ${write(r.pick(titles), r, things)}`;
  return cut(text, longTitle);
}

function description(r: Random, things: readonly string[], cutShare: number): string {
  let text = "";
  for (let left = 2 + r.below(2); left > 0; left--) text += `${text && " "}${write(r.pick(sentences), r, things)}`;
  if (r.chance(0.15)) text = insert(text, r);
  return r.chance(cutShare) ? `${cut(text, 150 + r.below(150)).replace(/[\s…]+$/, "")}…\u00a0` : text;
}

/** A poster, with the same name and number of followers on all posts. */
function poster(id: number) {
  const r = randomOf(2, id);
  let name = write(r.pick(posters), r, lists.brand);
  if (r.chance(0.02)) name += ` ${r.pick(["✨", "🌿", "| “Art” & Co.", "\\o/", "(שלום)", "é", "™"])}`;
  if (r.chance(0.002)) {
    while (name.length < longPoster) name += ` | ${write(r.pick(posters), r, lists.brand)}`;
    name = cut(name, longPoster);
  }
  const size = r.real();
  const unit = size < 0.746 ? "k" : size < 0.827 ? "M" : "";
  const count = unit === "M" ? 1 + r.low(30) : unit === "k" ? 1 + r.low(900) : r.low(1_000);
  return { name, followers: `${count}${unit}` };
}

const blanks = [" ", "\u00a0", "\u200b", "\u3000", "\ufeff", "\t", "\u2060 "].flatMap((blank) => [
  (name: string) => name + blank,
  (name: string) => blank + name + blank,
]);

/** 2015-10-21, in days since 1970. People join for two years, then post for five. */
const joinedFrom = Date.UTC(2015, 9, 21) / 86_400_000;

function geoRow(index: number): Row {
  const r = randomOf(3, index);
  const country = r.chance(1 / 3) ? countries[r.low(15)] : countries[r.below(countries.length)];
  const place = randomOf(4, r.below(4_000)); // a few thousand places, not related to the country
  return [
    String(index),
    dateTime(r, joinedFrom + 731, 1_826),
    float(place.below(1_800_001) - 900_000),
    float(place.below(3_600_001) - 1_800_000),
    country as string,
  ];
}

function userRow(index: number): Row {
  const r = randomOf(5, index);
  const person = randomOf(6, Math.floor(index / sampleSize) * 5_000 + r.low(5_000)); // each person has several keys
  return [
    String(index),
    person.pick(lists.first),
    person.pick(lists.last),
    String(20 + person.low(41)),
    dateTime(person, joinedFrom, 731),
  ];
}

function write({ texts, fillings }: Template, r: Random, things: readonly string[]): string {
  let text = texts[0] as string;
  for (let i = 0; i < fillings.length; i++) text += r.pick(fillings[i] ?? things) + (texts[i + 1] as string);
  return text;
}

/** Inserts an oddity at a space of a text, never at the beginning or end. */
function insert(text: string, r: Random): string {
  const at = text.indexOf(" ", r.below(text.length));
  return at < 0 ? text : `${text.slice(0, at)} ${r.pick(lists.oddity)}${text.slice(at)}`;
}

/** At most `length` characters, without a space or half a character at the end. */
const cut = (text: string, length: number) => text.slice(0, length).replace(/[\s\ud800-\udbff]+$/, ".");

const bytes = Array.from({ length: 256 }, (_, byte) => byte.toString(16).padStart(2, "0"));
function hex(r: Random): string {
  let text = "";
  for (let i = 0; i < 4; i++) {
    const n = r.next();
    text += `${bytes[n >>> 24]}${bytes[(n >>> 16) & 255]}${bytes[(n >>> 8) & 255]}${bytes[n & 255]}`;
  }
  return text;
}

function uuid(r: Random): string {
  const digits = hex(r);
  const variant = "89ab"[Number.parseInt(digits[16] as string, 16) & 3];
  return [
    digits.slice(0, 8),
    digits.slice(8, 12),
    `4${digits.slice(13, 16)}`,
    variant + digits.slice(17, 20),
    digits.slice(20),
  ].join("-");
}

/** A FLOAT as MySQL shows it, with six significant digits, from ten-thousandths. */
const float = (n: number) => String(Math.abs(n) < 1_000_000 ? n / 10_000 : Math.trunc(n / 10) / 1_000);

const two = Array.from({ length: 60 }, (_, n) => String(n).padStart(2, "0"));
const days: string[] = [];

/** A random time within `count` days from `first` (days since 1970). */
function dateTime(r: Random, first: number, count: number): string {
  const day = first + r.below(count);
  days[day] ??= new Date(day * 86_400_000).toISOString().slice(0, 10);
  return `${days[day]} ${two[r.below(24)]}:${two[r.below(60)]}:${two[r.below(60)]}`;
}
