/**
 * Generates hostile messages from a seed: rows as MySQL returns them, damaged in many ways at the edges of the cleaning
 * rules.
 *
 * @module
 */
import { type Table, tableNames } from "../../io.ts";
import { Random } from "../../runtime/random.ts";
import type { Message } from "./oracle.ts";

/**
 * Messages in three partitions, with gaps between offsets. There are half as many inds as messages, equal in all tables,
 * and few posted times, so that rows and deletes supersede each other, with ties, and the tables join.
 */
export function hostileMessages(table: Table, count: number, seed: number): Message[] {
  const dice = new Random(seed * tableNames.length + tableNames.indexOf(table));
  const offsets = [0, 0, 0];
  return Array.from({ length: count }, (_, at) => {
    const ind = dice.below(Math.ceil(count / 2));
    const partition = dice.below(3);
    const offset = offsets[partition] ?? 0;
    offsets[partition] = offset + (dice.chance(0.1) ? 1 + dice.below(1000) : 1);
    const postedAt = dice.chance(0.1) ? dice.pick(oddTimes) : 1_666_000_000_000 + Math.floor((at * 5) / count);
    const value = dice.chance(0.15) ? null : hostileValue(table, ind, dice);
    const key = dice.chance(0.05) ? dice.pick(oddKeys(ind)) : `${ind}`;
    return { partition, offset, postedAt, key: key === null ? null : Buffer.from(key), value };
  });
}

const oddKeys = (ind: number): (string | null)[] => [
  ...[null, null, "", "a\u0000é", `0${ind}`, `00000000000000000000${ind}`, `-${ind}`, `+${ind}`, ` ${ind}`, `${ind}\n`],
  ...[`${ind}.0`, "12345678901234567890", "9223372036854775807", "9223372036854775808", "７", "\u0000"],
];

const oddTimes = [null, null, null, 0, 1, -1, -1000, 253402300799999, 253402300800000, Number.MAX_SAFE_INTEGER];

/** Messages at and just above the limit of 16 MB. */
export function bigMessages(table: Table): Message[] {
  const limit = 16 * 1024 * 1024;
  const row = randomRow(table, 7, new Random(7));
  const short = Buffer.from(write(row));
  const filled = (size: number, byte: string | number = " ") => Buffer.alloc(size, byte);
  const further = (text: string) => Buffer.from(write([...row, ["further", json(text)]]));
  const rest = limit - further("").length;
  const values = [
    Buffer.concat([short, filled(limit - short.length)]),
    Buffer.concat([short, filled(limit - short.length, "\n"), filled(1)]),
    further("x".repeat(rest)),
    further("x".repeat(rest + 1)),
    further("é".repeat(limit / 2)), // too many bytes, not too many characters
    Buffer.concat([short.subarray(0, -1), filled(limit - short.length + 1)]), // the last brace is missing
    filled(limit),
    filled(limit + 1),
    filled(limit + 1, 0xff),
  ];
  return values.map((value, offset) => ({ partition: 0, offset, postedAt: 1_666_000_000_000, key: null, value }));
}

// ---- Rows: the name and the JSON text of each column

type Row = [column: string, json: string][];

const words = (text: string): string[] => text.split(/\s+/);
/** Texts separated by bars, which may contain spaces; a line may end after a bar. */
const list = (text: string): string[] => text.split(/\|(?:\n {2,4}(?! ))?/);
const people = ["Ada Byron", "Алан Тьюринг", "User Info Error", "小林 一茶", "🦊 Fox", "O'Neil", "Zoë", "zoe", "A,B"];
const countries = ["Albania", "Aruba", "Côte d'Ivoire", "Ａ", "😀", "albania", "Åland", "Z", "\u{10ffff}", "\uffee"];
const noTags = "N,o, ,T,a,g,s, ,A,v,a,i,l,a,b,l,e";
const noDescriptions = ["No description available Story format", "No description available"];

function randomRow(table: Table, ind: number, dice: Random): Row {
  const two = (first: number, count: number) => `${first + dice.below(count)}`.padStart(2, "0");
  const day = (year: number) => `"${year}-${two(1, 12)}-${two(1, 28)} ${two(0, 24)}:${two(0, 60)}:${two(0, 60)}"`;
  const degrees = (bound: number) => `${Number((((dice.below(2e6) - 1e6) / 1e6) * bound).toPrecision(6))}`;
  const [first = "", last = null] = words(dice.pick(people));
  const category = dice.pick(words("art beauty christmas finance travel vehicles"));
  const image = dice.pick(["https://i.pinimg.com/a.jpg", "Image src error."]);
  const title = dice.pick([
    "10 Ideas",
    "No Title Data Available",
    "",
    "a\nb\tc",
    '“Q” \\ / "',
    "👩‍👩‍👧 e\u0301",
    "wait…\u00a0",
  ]);
  const columns: Record<Table, Record<string, string>> = {
    pin: {
      index: `${ind}`,
      unique_id: json(`${dice.below(2 ** 32).toString(16)}-4f5e-4f5e-8d1c-0123456789ab`),
      title: json(title),
      description: json(dice.pick([...noDescriptions, "Some text…\u00a0", "\u200bMore text "])),
      poster_name: json(dice.pick(people)),
      follower_count: json(dice.pick(words(`12k 3M 437 1k 0 136k 0.5M ${dice.below(1000)} ${dice.below(1000)}k`))),
      tag_list: json(dice.pick([noTags, "Home, Decor ,,home", "a"])),
      is_image_or_video: json(dice.pick(["image", "video", "multi-video(story page format)"])),
      image_src: json(image),
      downloaded: image.startsWith("h") ? "1" : "0",
      save_location: json(`Local save in /data/${category}`),
      category: dice.chance(0.03) ? "null" : json(category),
    },
    geo: {
      ind: `${ind}`,
      timestamp: day(2017 + dice.below(7)),
      latitude: degrees(90),
      longitude: degrees(180),
      country: json(dice.pick(countries)),
    },
    user: {
      ind: `${ind}`,
      first_name: json(first),
      last_name: json(last),
      age: `${15 + dice.below(45)}`,
      date_joined: dice.chance(0.5) ? json("2016-02-29 10:00:00") : day(2014 + dice.below(8)),
    },
  };
  return Object.entries(columns[table]);
}

const json = (text: string | null): string => JSON.stringify(text);

/** The same JSON string with every UTF-16 unit escaped. */
function escaped(text: string): string {
  const units = Array.from({ length: text.length }, (_, at) => text.charCodeAt(at).toString(16).padStart(4, "0"));
  return `"${units.map((unit) => `\\u${unit}`).join("")}"`;
}

/** The row as one JSON object, with names formatted by `name` and `gap` between all tokens. */
function write(row: Row, name: (column: string) => string = json, gap = () => ""): string {
  const pairs = row.map(([column, value]) => `${gap()}${name(column)}${gap()}:${gap()}${value}${gap()}`);
  return `${gap()}{${pairs.join(",")}}${gap()}`;
}

function hostileValue(table: Table, ind: number, dice: Random): Buffer | null {
  const row = randomRow(table, ind, dice);
  const kind = dice.below(100);
  if (kind < 12) return Buffer.from(write(row));
  if (kind < 15) return Buffer.from(write(row, json, () => dice.pick(["", "", " ", "\t", "\n", "\r\n", "  \n\t"])));
  if (kind < 17) return Buffer.from(write(row, (column) => (dice.chance(0.5) ? json(column) : escaped(column))));
  if (kind < 71) return Buffer.from(write(spoilColumns(table, row, dice)));
  if (kind < 83) return Buffer.from(write(dice.pick(shapes)(row, dice)));
  if (kind < 96) return dice.pick(kind < 88 ? notRows : damages)(write(row), dice);
  return flip(Buffer.from(write(row)), dice);
}

// ---- Columns

/** The columns to damage; columns with more rules occur more often. */
const aims: Record<Table, string[]> = {
  pin: words(`index follower_count follower_count follower_count follower_count follower_count tag_list tag_list title
    description poster_name image_src save_location unique_id category is_image_or_video downloaded`),
  geo: words("ind latitude latitude longitude longitude timestamp timestamp timestamp country country"),
  user: words("ind first_name last_name age age age date_joined date_joined date_joined"),
};

function spoilColumns(table: Table, row: Row, dice: Random): Row {
  const spoiled = [dice.pick(aims[table]), dice.chance(0.3) ? dice.pick(aims[table]) : ""];
  return row.map(([column, value]) => [column, spoiled.includes(column) ? spoil(column, value, dice) : value]);
}

function spoil(column: string, value: string, dice: Random): string {
  if (dice.chance(0.15)) return dice.pick(otherValues);
  const isText = !/^(ind|index|age|latitude|longitude|timestamp|date_joined)$/.test(column);
  const isTime = column === "timestamp" || column === "date_joined";
  let text = isTime ? oddTime(dice) : dice.pick((!isText || dice.chance(0.8) ? spellings[column] : undefined) ?? texts);
  if (dice.chance(0.25)) text = nearly(String(JSON.parse(value)), dice);
  if (isText && dice.chance(0.1)) text = dice.chance(0.5) ? text.toLowerCase() : text.toUpperCase();
  if (dice.chance(isText ? 0.4 : 0.03)) text = `${outer(dice)}${text}${outer(dice)}`;
  const isNumber = isText ? /^[1-9]\d*$/.test(text) : /^-?(0|[1-9]\d*)(\.\d+)?([eE][+-]?\d+)?$/.test(text);
  if (isNumber && dice.chance(0.5)) return text;
  return dice.chance(0.1) ? escaped(text) : dice.chance(0.1) ? json(text).replaceAll("/", "\\/") : json(text);
}

const digits60 = "1234567890".repeat(6);
const otherValues = [
  ...words(`null null null null null true false 0 12 -5 1.5 1e3 [] {} [1,"a"] {"index":1} "" "null" "true" [null]`),
  ...['" "', '["2020-01-01 00:00:00"]', "18446744073709551616", digits60, `-${digits60}`, '"\\u0000"', '{"a":[{}]}'],
];

const whites =
  "\t\n\v\f\r \u0085\u00a0\u1680\u2000\u2001\u2002\u2003\u2004\u2005\u2006\u2007\u2008\u2009\u200a" +
  "\u2028\u2029\u202f\u205f\u3000\u200b\u2060\ufeff";
const notWhites =
  "\u0000\u0008\u000e\u001c\u001d\u001e\u001f\u007f\u0084\u00ad\u034f\u180e\u200c\u200d\u200e" +
  "\u2061\u206f\u2800\u3164\ufe0f\uffa0\ufffe";

/** A few characters for the beginning or end of a text, rarely some that only look like white space. */
function outer(dice: Random): string {
  const length = dice.pick([0, 1, 1, 2, 3]);
  const some = dice.chance(0.15) ? `${whites}${notWhites}` : whites;
  return Array.from({ length }, () => dice.pick(dice.chance(0.3) ? " " : some)).join("");
}

/** A text with one character changed. */
function nearly(text: string, dice: Random): string {
  const [at, odd] = [dice.below(text.length + 1), dice.pick("0123456789.,:-+ TZkMBeE'\"\u00a0\n０é")];
  return text.slice(0, at) + dice.pick(["", odd, text.charAt(at)]) + text.slice(at + dice.below(2));
}

const zeros = "0".repeat(300);
const keys = `0 00 007 -1 -0 +7 7.0 7.5 7e2 7E0 7e-0 9223372036854775806 9223372036854775807 9223372036854775808
  09223372036854775807 18446744073709551615 18446744073709551623 340282366920938463463374607431768211463 0x7 1_0 ７ ٧ ७
  7² 7k 1,000 NaN Infinity abc true null --1 7. .7 ${zeros}7 1${zeros} ${digits60} 2147483647 2147483648 4294967303`;
const degrees = `0 90 -90 90.0 90.0000001 -90.0000001 90.00000000000000000001 89.99999999999999999999 180 -180 180.0
  180.0000001 -180.00000000000003 179.99999 1e1 1E1 1e+1 1e-1 9e1 9.0e1 9.1e1 1.8e2 18e+01 1e400 -1e400 1e-400 1e-320
  5e-324 2.4703282292062328e-324 0e400 0.0 -0.0 00012.5 007 -007 +1 .5 -.5 5. 1.e1 1e 1e+ e1 1e1.5 --1 1-1 - 0x1F 0b1 1_0
  1,5 45.5N 45° １２.5 ٣ \u22125 NaN nan Infinity -Infinity inf +inf 1f 1d 1.5F 1L 0.1 0.30000000000000004 -89.9787
  12345678901234567890e-18 45.${digits60}${digits60} 0.${zeros}1 ${zeros}5 1${zeros}e-300 8.5e00000000001 4.9E-324 1/2`;
const spellings: Record<string, string[]> = {
  index: [...words(keys), ...list("| | 7|7 |7\n|\u00a07|7\u0000|1 2|7\ufeff")],
  latitude: [...words(degrees), ...list("| | 5|5 |5\n|\u00a05|5\u0000|1 0|\t5")],
  age: [
    ...words(`0 00 7 007 17 18 24 25 35 36 50 51 129 130 131 0130 0131 ${zeros}20 20.0 2e1 2E1 0.2e2 20.5 -1 -0 +20 1e400
      １２ ٣٤ ४२ 0x14 1_0 1,0 twenty NaN 256 1000 2147483648 4294967316 18446744073709551636 ${digits60} 20. 20yrs 2²`),
    ...list("| | 20|20 |20\n|20\u00a0|20 years|20\u0000|2 0"),
  ],
  follower_count: [
    ...words(`0 1 00 007 12k 12K 1M 1m 2B 2b 1.2M 1.2k 0.5k 1.2345k 1.2340k 1.23400000000000000000k 0.0005M 0.000001M
      0.0000005M 0.001k 0.0001k 0.000000001B 0.0000000001B 1.0 1.5 1. 1.k .5k .5 1..5k 1.2.3k 1,234 1,234,567 1,234k
      1,234.5k 1,234.5 1234,567 12,34 1,23 ,123 123, 1,,234 1,234, 0,123 000,000 0,000k 1234,567k 1.234,567M 1,234,56 1,2345
      +1 -1 -0 +1k -1k 1e3 1E3 1e3k 1k2 1kk kk k M , . 1T 1g 1km 1KM 1K. 0x10 0k 0.0B 1_000 1_000k １２ １２k １，２３４ ٣ ١٢k
      1२ ½ ½k Ⅻ ² 12\u212a 1к 1Ｋ 1‚234 1，234 1٬234 1'234 1·5k 1٫5k 1，5k NaN Infinity inf true null n/a User 9223372036854775807
      9223372036854775808 9,223,372,036,854,775,807 9,223,372,036,854,775,808 9223372036854775.807k 9223372036854775.808k
      9.223372036854775807B 9.223372036B 9223372036.854775807B 9223372036.854775808B 9,223,372,036.854775807B 9223372036854775k
      9223372036854776k 9223372036855M 9223372037B 18446744073709551615 18446744073709551616 18446744073709551617 ${digits60}
      18446744073709551.617k 170141183460469231731687303715884105728 340282366920938463463374607431768211457 ${digits60}k
      ${zeros}12 ${zeros}12k 1.${zeros}k 1.${zeros}1k 0.${zeros}1B 1${zeros} 1.5${zeros}M 0${",000".repeat(50)} 1${",000".repeat(50)}`),
    ...list(`12 k|1 234|12\u00a0k|12\nk|1\u202f234|12\u200bk|1 200 000|12k followers|User Info Error|User Info Error|
    user info error|User  Info Error|User Info Error.|UserInfoError`),
  ],
  tag_list: [
    ...list(`a,b|,|,,| , ,|a,,b| a , b |\u200ba\u200b,\u2060|a，b|a、b|a،b|a;b|a,a, a|,a,|No Tags Available|N,o|"a","b"|
    ["a"]|a\\,b|\u180e,a\u180e|\u200c,\u200d|a\u00a0b,\n|😀,👩‍👧,e\u0301|null|null,|\u0000,a|a,\u3000\u2028,b|#a #b|a\tb,c\nd`),
    ...list(
      `${noTags}|${noTags}|${noTags},|,${noTags}|${noTags.toLowerCase()}|${noTags.replaceAll(" ", "")}|${"x,".repeat(2000)}`,
    ),
  ],
  save_location:
    list(`Local save in /data/a|Local save in |Local save in|Local save in \u00a0x|Local save in  /a |/data/a|
    local save in /a|Local save in Local save in /a|Local save in\u00a0/a|Local save in \u200b|Local  save in /a|
    Local save in /data/Local save in /b|Local save into /a|Local save in .|xLocal save in /a|Local save in \u180e`),
};
spellings.ind = spellings.index ?? [];
spellings.longitude = spellings.latitude ?? [];
const placeholders = [...noDescriptions, "No Title Data Available", "User Info Error", "Image src error.", noTags];
const texts = [
  ...placeholders,
  ...placeholders,
  ...list(`No description available  Story format|No description available.|Image src error|| |\u200b|\u2060\ufeff|\u180e|
    \u200d|\u001c|…|…\u00a0|e\u0301|😀|\u{10ffff}|\ufffd|\u0000|a\u0000b|\uffff|\b\f\n\r\t\v|"|\\|\\u0041|\\n|/|'|''|\`|$1|%s|
    \\0|{}|[1]|null|NULL|None|N/A|nan|true|0|12|007|1.50|1e3|'; DROP TABLE pin; --|<b>&amp;</b>|a \u00a0 b|a\u2028b|
    \u202eabc\u202c|ｆｕｌｌ|ﬁ|İı|ß|ς|नमस्ते|👩🏽‍🚀|🇦🇱|a${whites}b`),
  "a".repeat(5000),
];

const dates =
  words(`2020-02-29 2100-02-29 2000-02-29 1900-02-29 2018-02-29 2016-02-30 2021-04-31 2021-06-31 2021-12-32 2021-00-10
  2021-13-01 2021-01-00 0000-01-01 0000-02-29 0000-00-00 0001-01-01 0100-02-29 0400-02-29 1582-10-10 1969-12-31 1970-01-01
  9999-12-31 10000-01-01 12021-01-01 -0001-01-01 +2021-01-01 2021-1-01 2021-01-1 21-01-01 2021/01/01 01-02-2021 2021-01 2021
  20210101 2021-W01-1 2021-001 ２０２１-01-01 2021‐01‐01 2021-Jan-01 2018-01-01 2022-12-31 2015-01-01 2020-12-31 1677-09-21 2262-04-12`);
const times =
  list(`00:00:00|23:59:59|24:00:00|23:60:00|23:59:60|25:00:00|12:00|12|1:00:00|12:0:00|12:00:0|120000|12-00-00|
  12.00.00|１２:00:00|-1:00:00|12:00:00,|12:00:00,5|12:00:00.|12:00:00.Z|12:00:00.1|12:00:00.12|12:00:00.123|12:00:00.1234|
  12:00:00.12345|23:59:59.999999|12:00:00.000001|12:00:00.1234567|12:00:00.123456789|12:00:00.1234560|12:00:00.123456Z|
  12:00:00.5Z|12:00:00Z|12:00:00z|12:00:00ZZ|12:00:00+00:00|12:00:00-00:00|12:00:00+0000|12:00:00+01|12:00:00+01:00|
  12:00:00.5+00|12:00:00:00|12:00:00[UTC]|12:00:00UTC|12:00:00.-5|12:00:00.+5|12:00:00.1e1|12:00:00.１|12:00:00 Z|
  12:00:00 UTC|12:00:00 PM|12:00:00 +00:00|12:00:00 BC|12:00:00 |12:00:00\n|12:00:00\u0000|T12:00:00`);
const wholeTimes =
  list(`epoch|infinity|-infinity|now|today|tomorrow|yesterday|0|1600000000|1600000000000|1.6e9|NaN|null|P1D|
  2021-01-01|12:00:00|| |Jan 1 2021 12:00:00|2021-01-01 12:00:00 (BC)|2021-01-01T|epoch |Fri, 01 Jan 2021 12:00:00 GMT|
  \u00a02021-01-01 12:00:00|\ufeff2021-01-01 12:00:00|2021-01-01 12:00:00\u200b|\n2021-01-01 12:00:00`);

function oddTime(dice: Random): string {
  if (dice.chance(0.15)) return dice.pick(wholeTimes);
  const date = dice.chance(0.4) ? dice.pick(dates) : `20${14 + dice.below(9)}-0${1 + dice.below(9)}-28`;
  const time = dice.chance(0.5) ? dice.pick(times) : `1${dice.below(10)}:0${dice.below(10)}:59`;
  const between = dice.chance(0.85) ? dice.pick(" T") : dice.pick(list("t|  |\t|\n|\u00a0|_||-| T|T "));
  return `${date}${between}${time}`;
}

// ---- Rows of another shape

const nested = (depth: number) => `${"[".repeat(depth)}${"]".repeat(depth)}`;
const nestedObjects = (depth: number) => `${'{"a":'.repeat(depth)}1${"}".repeat(depth)}`;
const furtherNames = list("|INDEX|Ind|TITLE|Age|__proto__|$.title|title.x|/title|_offset|table|é|\u0000");
const furtherValues = [...otherValues, nested(499), nestedObjects(499), '{"index":{"index":2}}', "9".repeat(500)];
const badValues = [
  ...words(`01 +1 .5 1. 1.e1 0x10 1e 1e+ --1 1_000 1n 1,5 True None undefined nul nulll TRUE abc 'a' "a 'a" "\\x41" "\\u12"
    "\\u12g4" "\\'" "\\0" "\\a" "\\U0001F600" "\\" "" "a""b" [1 [1}] {"a"} {a:1} {1:2} {"a":1,,"b":2} [,] {,} [1,,2] (1) <1> /**/1
    1/**/ # ;1 0. 00 -01 １ “a” - -a 1a . 1.2.3 "a`),
  ...list('"a\nb"|"a\tb"|"\u0000"|"\u001f"|"a\rb"|1 2|\u00a01|\f1|\v1|1\u2028|"a\\\nb"'),
];
/** Inputs that the spec leaves open to the reader, on both sides of each limit. */
const openValues = [
  ...words(`NaN Infinity -Infinity -0 [NaN] "\\ud83d" "\\ude00\\ud83d" "\\ud83dx\\ude00" "\\ud83d\\ude00" [1,] {"a":1,} -0.0 1.0
    {"a":1,"a":2} {"A":1,"a":2} [{}] ${nested(500)} ${nestedObjects(501)} ${nested(3000)} ${"9".repeat(501)} 0.${"1".repeat(501)}`),
];

const at = (row: Row, dice: Random): number => dice.below(row.length);
const renamed = (row: Row, place: number, name: string): Row =>
  row.map((pair, i) => (i === place ? [name, pair[1]] : pair));
const revalued = (row: Row, place: number, value: string): Row =>
  row.map((pair, i) => (i === place ? [pair[0], value] : pair));

const shapes: ((row: Row, dice: Random) => Row)[] = [
  (row, dice) => row.toSpliced(at(row, dice), 1),
  (row, dice) => row.toSpliced(at(row, dice), 1 + dice.below(3)),
  (row) => row.filter(([column]) => column !== "downloaded"),
  (row, dice) => revalued(row, at(row, dice), "null"),
  (row) => row.map(([column, value], i) => [column, i === 0 ? value : "null"]),
  (row) => row.toReversed(),
  (row, dice) => row.toSpliced(at(row, dice), 0, [dice.pick(furtherNames), dice.pick(furtherValues)]),
  (row, dice) => [...row, ...furtherNames.map((name): Row[number] => [name, dice.pick(furtherValues)])],
  (row, dice) => {
    const place = at(row, dice);
    const name = row[place]?.[0] ?? "";
    const capital = name.charAt(0).toUpperCase() + name.slice(1);
    const others = [name.toUpperCase(), capital, `${name} `, `\ufeff${name}`, `_${name}`, name.replace("_", "-")];
    return renamed(row, place, dice.pick(others));
  },
  (row) => renamed(row, 0, "ind"),
  (row, dice) => renamed(row, 0, dice.pick(["index", "id", "Index"])),
  (row, dice) => [["ind", dice.pick(list('1|null|"x"'))], ...row.slice(row[0]?.[0] === "ind" ? 1 : 0)],
  (row, dice) => [...renamed(row, 0, "ind"), ["index", dice.pick(["1", "null", '"x"', "7.5"])]],
  (row, dice) => revalued(row, at(row, dice), dice.pick(badValues)),
  (row, dice) => revalued(row, at(row, dice), dice.pick(badValues)),
  (row, dice) => revalued(row, at(row, dice), dice.pick(openValues)),
  (row, dice) => [...row, ["further", dice.pick(openValues)]],
  (row, dice) => [...row, row[at(row, dice)] ?? ["a", "1"]],
];

// ---- Messages that are not rows

const scalars = words(`[] [{}] [1] [[]] 1 0 -1.5e3 "" "a" "{}" true false null 1e400 ${nested(500)} [1,"a",null]`);

const notRows: ((text: string, dice: Random) => Buffer | null)[] = [
  () => null,
  () => Buffer.alloc(0),
  (_, dice) => Buffer.from(`${outer(dice)}${outer(dice)}`),
  (_, dice) => Buffer.from(dice.pick(list("\ufeff| |\n|\u2028\u200b|\u180e|\u200d|\u0000|\u001c| \u0000 "))),
  (text, dice) => Buffer.from(dice.pick([`[${text}]`, json(text), `[${text},${text}]`, ` \n[${text}]\t`])),
  (_, dice) => Buffer.from(dice.pick(scalars)),
  (_, dice) => Buffer.from(` ${dice.pick(scalars)}\r\n`),
];

const brokenBytes = words(
  "ff fe c080 c0af c1bf e080af f08080af eda080 edb080 eda0bdedb880 f4908080 f888808080 80 bf e282 f09f98 c3 c328 e28228",
);
const afterwards = list("{}|x|,|null|]|}| 1|\u00a0|\u0000|;| // c|\f|\u001e|\ufeff|\n{}|\u2028|\u0085");

/** Inserts bytes into a text, mostly inside a string. */
function insert(text: string, bytes: Buffer | string, dice: Random): Buffer {
  const quotes = [...text.matchAll(/"/g)].map((match) => Buffer.byteLength(text.slice(0, match.index + 1)));
  const whole = Buffer.from(text);
  const place = dice.chance(0.8) ? dice.pick(quotes) : dice.below(whole.length + 1);
  return Buffer.concat([whole.subarray(0, place), Buffer.from(bytes as string), whole.subarray(place)]);
}

const damages: ((text: string, dice: Random) => Buffer)[] = [
  (text, dice) => Buffer.from(text).subarray(0, dice.below(text.length)),
  (text) => Buffer.from(text.slice(0, -1)),
  (text) => Buffer.from(text.slice(1)),
  (text, dice) => Buffer.from(`${text}${dice.pick([...afterwards, text, `\n${text}`])}`),
  (text, dice) => Buffer.from(`${dice.pick(afterwards)}${text}`),
  (text) => Buffer.from(text.replaceAll('"', "'")),
  (text) => Buffer.from(text.replaceAll(/"(\w+)":/g, "$1:")),
  (text, dice) => Buffer.from(text.replace(",", dice.pick(list(",,||;|,//c\n|,/* c */|, ,|\u00a0,|,\f|},{")))),
  (text, dice) => Buffer.from(text.replace(":", dice.pick(["", "::", "=", "=>", " ", ":\u00a0"]))),
  (text, dice) => Buffer.from(text.replace(/}$/, dice.pick([",}", ", }", ",,}", "]", "}}", ",\n}\n", ",}x"]))),
  (text, dice) => insert(text, String.fromCharCode(dice.below(32)), dice),
  (text, dice) => insert(text, dice.pick(list('\u007f|\u2028|\u0085|\ufeff|\\|"|\\u|\\x|\\/|\n')), dice),
  (text, dice) => insert(text, Buffer.from(dice.pick(brokenBytes), "hex"), dice),
  (text, dice) => Buffer.concat([Buffer.from(text), Buffer.from(dice.pick(brokenBytes), "hex")]),
  (text, dice) =>
    Buffer.concat([Buffer.from(dice.pick(["0000000001", "efbbbf", "fffe", "1f8b08"]), "hex"), Buffer.from(text)]),
  (text) => Buffer.from(text, "utf16le"),
  (text) => Buffer.from(text, "latin1"),
  (_, dice) => Buffer.from(dice.pick(list("{|[|\"|{]|[}|-|{}}|'|}|\\|a|NUL|None|<a/>|a: 1|a,b\n1,2|{}"))),
  (_, dice) => Buffer.from(dice.pick(["[", '{"a":', '[{"a":']).repeat(dice.pick([1, 499, 501, 5000, 100000]))),
  (_, dice) => Buffer.from(`${"[".repeat(499)}${dice.pick(["", "x", "[", "01"])}${"]".repeat(499)}`),
];

/** Bytes with one to three of them changed, removed or duplicated. */
function flip(bytes: Buffer, dice: Random): Buffer {
  let flipped = bytes;
  for (let times = 1 + dice.below(3); times > 0; times--) {
    const place = dice.below(flipped.length);
    const byte = (flipped[place] ?? 0) ^ (1 << dice.below(8));
    const bytesThere = dice.pick([[byte], [byte], [], [byte, flipped[place] ?? 0]]);
    flipped = Buffer.concat([flipped.subarray(0, place), Buffer.from(bytesThere), flipped.subarray(place + 1)]);
  }
  return flipped;
}
