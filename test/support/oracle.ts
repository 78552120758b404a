/**
 * The oracle: an independent implementation of cleaning (section 3) and the nine answers (section 5) of the data
 * contract, row by row in plain TypeScript, which the SQL is compared with. Clarity comes before speed.
 *
 * Cells: BIGINT and TIMESTAMP (microseconds since 1970, UTC) are bigint; INT, DOUBLE and years are number.
 *
 * @module
 */

import { isUtf8 } from "node:buffer";
import { type Table, tables } from "../../io.ts";

/** A Kafka message of one of the three topics, `postedAt` in milliseconds since 1970. */
export interface Message {
  partition: number;
  offset: number;
  postedAt: number | null;
  key: Buffer | null;
  value: Buffer | null;
}

/** The keys of messages, as text. */
export const keysOf = (messages: Message[]): (string | undefined)[] => messages.map((m) => m.key?.toString());

/** The reject reasons, in the order of the checks. */
export const reasons = [
  ...(["empty_message", "too_big", "not_json", "not_an_object", "missing_column", "bad_key"] as const),
  ...(["bad_follower_count", "bad_coordinates", "bad_timestamp", "bad_age"] as const),
] as const;

/** Why a message is rejected, and for which column, if for one. */
export interface Reject {
  reason: (typeof reasons)[number];
  column?: string;
}

/** A silver row, its columns in order. */
export type Row<T extends Table> = { ind: bigint } & ReturnType<(typeof rules)[T]> & ReturnType<typeof origin>;

/**
 * Cleans all messages of a table. `deletes` are the inds whose newest message is a delete; `superseded` counts clean
 * messages and deletes that a newer message of the same ind replaced.
 */
export function cleanTable<T extends Table>(table: T, messages: Iterable<Message>) {
  const newest = new Map<bigint, { delete: Delete } | { row: Row<T> }>();
  const rejects = [];
  let superseded = 0;
  for (const message of messages) {
    const ind = deletedKey(message);
    const result = ind === undefined ? cleanMessage(table, message) : { delete: { ind, ...origin(message) } };
    if ("reject" in result) {
      rejects.push({ table, ...origin(message), key: message.key, ...result.reject, raw: message.value });
      continue;
    }
    const one = "row" in result ? result.row : result.delete;
    const other = newest.get(one.ind);
    if (other !== undefined) superseded++;
    if (other === undefined || isNewer(one, "row" in other ? other.row : other.delete)) newest.set(one.ind, result);
  }
  const rows = new Map<bigint, Row<T>>();
  const deletes = new Map<bigint, Delete>();
  for (const [ind, winner] of newest) {
    if ("row" in winner) rows.set(ind, winner.row);
    else deletes.set(ind, winner.delete);
  }
  return { rows, deletes, superseded, rejects };
}

/** A message that deletes the row of an ind. */
type Delete = { ind: bigint } & ReturnType<typeof origin>;

/** The ind that a message without a value deletes: the digits of its key. */
function deletedKey({ key, value }: Message): bigint | undefined {
  const text = key?.toString("latin1") ?? "";
  if (value !== null || text === "" || [...text].some((digit) => digit < "0" || digit > "9")) return undefined;
  const ind = BigInt(text);
  return ind > maxInt64 ? undefined : ind;
}

function isNewer(one: ReturnType<typeof origin>, other: ReturnType<typeof origin>): boolean {
  const [time, otherTime] = [one._posted_at ?? -1n, other._posted_at ?? -1n]; // times are never below 0
  if (time !== otherTime) return time > otherTime;
  if (one._partition !== other._partition) return one._partition > other._partition;
  return one._offset > other._offset;
}

/** Cleans one message. @returns its silver row, or the reason of its rejection */
export function cleanMessage<T extends Table>(table: T, message: Message): { row: Row<T> } | { reject: Reject } {
  try {
    const columns = readColumns(table, message.value);
    const ind = readKey(columns, keyColumn(table, columns));
    const row: object = { ind, ...rules[table](columns), ...origin(message) };
    return { row: row as Row<T> };
  } catch (error) {
    if (error instanceof Rejection) return { reject: error.reject };
    throw error;
  }
}

class Rejection extends Error {
  reject: Reject;
  constructor(reason: Reject["reason"], column?: string) {
    super(reason);
    this.reject = column === undefined ? { reason } : { reason, column };
  }
}

/**
 * Whether the result depends on something that the spec leaves open: readers may refuse the message or read it
 * differently, or a column that decides the result has a value whose text is left open.
 */
export function leftOpen(table: Table, message: Message): boolean {
  const { value } = message;
  const json = value !== null && value.length <= sizeLimit ? readJsonOf(value) : undefined;
  if (json === undefined || json.open !== undefined) return json !== undefined;
  const { columns = new Map<string, Json>() } = json;
  const isText = (column: string) =>
    Object.entries(tables[table].columns).some((c) => c[0] === column && c[1] === "text");
  const open = [...columns].flatMap(([column, { type, text }]) => {
    const isRead = column === keyColumn(table, columns) || wanted(table).includes(column);
    const isOpen = type === "nested" || (type === "number" && /[.eE]/.test(text));
    return (isRead && type === "number" && text === "-0") || (isText(column) && isOpen) ? [column] : [];
  });
  const result = cleanMessage(table, message);
  return "row" in result ? open.length > 0 : open.includes(result.reject.column ?? "");
}

// ---- The whole message

type Columns = Map<string, Json>;
const sizeLimit = 16 * 1024 * 1024;
const maxInt64 = 2n ** 63n - 1n;
const maxPostedAt = 253402300799999; // 9999-12-31 23:59:59.999

function readColumns(table: Table, value: Buffer | null): Columns {
  // Bytes that are not UTF-8 become U+FFFD here, which is not a blank.
  if (value === null || trim(value.toString()) === "") throw new Rejection("empty_message");
  if (value.length > sizeLimit) throw new Rejection("too_big");
  const json = readJsonOf(value);
  if (!json?.isStrict) throw new Rejection("not_json");
  const { columns } = json;
  if (columns === undefined) throw new Rejection("not_an_object");
  const missing = wanted(table).find((name) => !columns.has(name === "index" ? keyColumn(table, columns) : name));
  if (missing !== undefined) throw new Rejection("missing_column", missing);
  return columns;
}

function wanted(table: Table): string[] {
  return Object.keys(tables[table].columns).filter((column) => column !== "downloaded");
}

/** A pin's key may be called `ind`, which is used only if `index` is absent. */
function keyColumn(table: Table, columns: Columns): string {
  return table === "pin" && columns.has("index") ? "index" : "ind";
}

function readKey(columns: Columns, column: string): bigint {
  const ind = digits(get(columns, column));
  if (ind === undefined || ind > maxInt64) throw new Rejection("bad_key", column);
  return ind;
}

function origin({ partition, offset, postedAt }: Message) {
  const isTime = postedAt !== null && postedAt >= 0 && postedAt <= maxPostedAt;
  return { _partition: partition, _offset: BigInt(offset), _posted_at: isTime ? BigInt(postedAt) * 1000n : null };
}

// ---- The columns

const rules = {
  pin: (columns: Columns) => ({
    unique_id: readText(columns, "unique_id"),
    title: readText(columns, "title", "No Title Data Available"),
    description: readText(columns, "description", "No description available Story format", "No description available"),
    follower_count: readFollowerCount(columns),
    poster_name: readText(columns, "poster_name", "User Info Error"),
    tag_list: readTags(columns),
    is_image_or_video: readText(columns, "is_image_or_video"),
    image_src: readText(columns, "image_src", "Image src error."),
    save_location: readSaveLocation(columns),
    category: readText(columns, "category"),
  }),
  geo: (columns: Columns) => ({
    country: readText(columns, "country"),
    coordinates: readCoordinates(columns),
    timestamp: readTimestamp(columns, "timestamp"),
  }),
  user: (columns: Columns) => {
    const date_joined = readTimestamp(columns, "date_joined"); // before age, because the first reason counts
    const names = [readText(columns, "first_name"), readText(columns, "last_name")];
    const user_name = names.filter((name) => name !== null).join(" ");
    return { user_name: user_name === "" ? null : user_name, age: readAge(columns), date_joined };
  },
};

// Unicode's White_Space, and U+200B, U+2060 and U+FEFF.
const spaces = "\u2000\u2001\u2002\u2003\u2004\u2005\u2006\u2007\u2008\u2009\u200a";
const blanks = new Set(
  Array.from(`\t\n\v\f\r \u0085\u00a0\u1680${spaces}\u2028\u2029\u202f\u205f\u3000\u200b\u2060\ufeff`, (blank) =>
    blank.charCodeAt(0),
  ),
);

function trim(text: string): string {
  let [start, end] = [0, text.length];
  while (start < end && blanks.has(text.charCodeAt(start))) start++;
  while (end > start && blanks.has(text.charCodeAt(end - 1))) end--;
  return text.slice(start, end);
}

function readText(columns: Columns, column: string, ...placeholders: string[]): string | null {
  const { type, text } = get(columns, column);
  const trimmed = trim(text);
  return type === "null" || trimmed === "" || placeholders.includes(trimmed) ? null : trimmed;
}

function readFollowerCount(columns: Columns): bigint | null {
  const text = readText(columns, "follower_count", "User Info Error");
  if (text === null) return null;
  const match = /^(\d+|\d{1,3}(?:,\d{3})+)(?:(?:\.(\d+))?([kKmMbB]))?$/.exec(text);
  const [, whole = "", decimals = "", suffix = ""] = match ?? [];
  const factor = { "": 1n, k: 1_000n, m: 1_000_000n, b: 1_000_000_000n }[suffix.toLowerCase()] ?? 0n;
  const product = BigInt(whole.replaceAll(",", "") + decimals) * factor;
  const divisor = 10n ** BigInt(decimals.length);
  const isWhole = product % divisor === 0n;
  if (!match || !isWhole || product / divisor > maxInt64) throw new Rejection("bad_follower_count", "follower_count");
  return product / divisor;
}

function readTags(columns: Columns): string[] | null {
  const text = readText(columns, "tag_list", "N,o, ,T,a,g,s, ,A,v,a,i,l,a,b,l,e") ?? "";
  const tags = text.split(",").map(trim);
  const filled = tags.filter((tag) => tag !== "");
  return filled.length === 0 ? null : filled;
}

function readSaveLocation(columns: Columns): string | null {
  const text = readText(columns, "save_location");
  return text?.startsWith("Local save in ") ? trim(text.slice("Local save in ".length)) : text;
}

function readCoordinates(columns: Columns): number[] | null {
  const [latitude, longitude] = [get(columns, "latitude"), get(columns, "longitude")];
  if (latitude.type === "null" && longitude.type === "null") return null;
  return [readCoordinate(latitude, 90), readCoordinate(longitude, 180)];
}

function readCoordinate({ type, text }: Json, bound: number): number {
  const isNumber = type === "number" || (type === "string" && /^-?\d+(\.\d+)?([eE][+-]?\d+)?$/.test(text));
  const value = Number(text);
  if (!isNumber || !(Math.abs(value) <= bound)) throw new Rejection("bad_coordinates", "coordinates");
  return value;
}

function readTimestamp(columns: Columns, column: string): bigint | null {
  const { type, text } = get(columns, column);
  if (type === "null") return null;
  const match = /^(\d{4})-(\d\d)-(\d\d)[ T](\d\d):(\d\d):(\d\d)(?:\.(\d{1,6}))?Z?$/.exec(type === "string" ? text : "");
  const [year = 0, month = 0, day = 0, hour = 0, minute = 0, second = 0] = (match ?? []).slice(1, 7).map(Number);
  const isLeap = year % 4 === 0 && (year % 100 !== 0 || year % 400 === 0);
  const days = [31, isLeap ? 29 : 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31][month - 1] ?? 0;
  const exists = day >= 1 && day <= days && hour <= 23 && minute <= 59 && second <= 59;
  if (!match || !exists) throw new Rejection("bad_timestamp", column);
  const milliseconds = Date.parse(`${text.slice(0, 10)}T${text.slice(11, 19)}Z`);
  return BigInt(milliseconds) * 1000n + BigInt((match[7] ?? "").padEnd(6, "0"));
}

function readAge(columns: Columns): number | null {
  const age = get(columns, "age");
  const years = digits(age);
  if (age.type !== "null" && (years === undefined || years > 130n)) throw new Rejection("bad_age", "age");
  return years === undefined ? null : Number(years);
}

/** The integer of a JSON number or text with digits only. */
function digits({ type, text }: Json): bigint | undefined {
  return (type === "number" || type === "string") && /^\d+$/.test(text) ? BigInt(text) : undefined;
}

function get(columns: Columns, column: string): Json {
  const value = columns.get(column);
  if (value === undefined) throw new Error(`Cannot read column "${column}": its presence was not checked`);
  return value;
}

// ---- JSON

/** A JSON value: the content of a string, the raw text of any other. */
interface Json {
  type: "null" | "boolean" | "number" | "string" | "nested";
  text: string;
}

/** Cache of {@link readJson}, because each message is read twice. */
function readJsonOf(value: Buffer): ReturnType<typeof readJson> {
  if (!known.has(value)) known.set(value, isUtf8(value) ? readJson(value.toString()) : undefined);
  return known.get(value);
}

const known = new WeakMap<Buffer, ReturnType<typeof readJson>>();

/**
 * Reads the columns of a JSON object (none for other JSON) and names something that readers differ in, if the text
 * has it. Trailing commas and bare NaN are read, not strictly; what no reader reads is undefined. JSON.parse is the
 * judge of the grammar; only the values are taken from the tokens, since it would lose digits.
 */
function readJson(text: string): { isStrict: boolean; columns?: Columns; open?: string } | undefined {
  const tokens = tokenize(text);
  const isStrict = isJson(text);
  if (!isStrict && !isJson(repair(tokens))) return undefined;

  let open = isStrict ? undefined : "trailing comma or NaN";
  const containers: Set<string>[] = []; // their keys
  const columns: Columns = new Map();
  tokens.forEach((token, at) => {
    if (token === "{" || token === "[") containers.push(new Set());
    if (token === "}" || token === "]") containers.pop();
    if (containers.length > 500) open ??= "nesting";
    const content: string | undefined = token.startsWith('"') ? JSON.parse(token) : undefined;
    if (content === undefined && token.length > 500 && token.replaceAll(/\D/g, "").length > 500) open ??= "long number";
    if (content === undefined) return;
    if (/\p{Surrogate}/u.test(content)) open ??= "lone surrogate"; // only an escape can be one: the bytes are UTF-8
    if (tokens[at + 1] !== ":") return;
    const keys = containers.at(-1);
    if (keys?.has(content)) open ??= "repeated key";
    keys?.add(content);
    if (containers.length === 1) columns.set(content, value(tokens[at + 2] ?? ""));
  });
  return { isStrict, ...(tokens[0] === "{" ? { columns } : {}), ...(open === undefined ? {} : { open }) };
}

/** The text without trailing commas and with numbers instead of NaN. */
function repair(tokens: string[]): string {
  const repaired = tokens.map((token, at) => {
    const isLast = token === "," && /^[}\]]$/.test(tokens[at + 1] ?? "") && !/^[{[,]$/.test(tokens[at - 1] ?? "");
    return isLast ? "" : /^[+-]?(nan|inf|infinity)$/i.test(token) ? "0" : token;
  });
  return repaired.join(" ");
}

function value(token: string): Json {
  if (token.startsWith('"')) return { type: "string", text: JSON.parse(token) };
  const type = { "{": "nested", "[": "nested", t: "boolean", f: "boolean", n: "null" } as const;
  return { type: type[token.charAt(0) as keyof typeof type] ?? "number", text: token };
}

function isJson(text: string): boolean {
  try {
    JSON.parse(text);
    return true;
  } catch {
    return false;
  }
}

/** Tokens: strings, brackets, colons, commas, and other text between them and JSON white space. */
function tokenize(text: string): string[] {
  const tokens: string[] = [];
  for (let at = 0; at < text.length; ) {
    const start = at++;
    const first = text.charAt(start);
    if (" \t\n\r".includes(first)) continue;
    if (first === '"') {
      // By codes: a text of 16 MB has as many characters.
      const [quote, backslash] = [0x22, 0x5c];
      for (let code = text.charCodeAt(at); at < text.length && code !== quote; code = text.charCodeAt(at)) {
        at += code === backslash ? 2 : 1;
      }
      at++;
    } else if (!"{}[]:,".includes(first)) {
      while (at < text.length && !'{}[]:," \t\n\r'.includes(text.charAt(at))) at++;
    }
    tokens.push(text.slice(start, at));
  }
  return tokens;
}

// ---- The nine answers

/**
 * The nine answers of the report. A null category is a category and sorts last. The median of a group without follower
 * counts is null. People with nulls count, and two nulls are equal.
 */
export function answers(pinRows: Iterable<Row<"pin">>, geoRows: Iterable<Row<"geo">>, userRows: Iterable<Row<"user">>) {
  const pins = [...pinRows];
  const geo = [...geoRows].map((row) => ({ ...row, post_year: year(row.timestamp) }));
  const user = [...userRows].map((row) => ({ ...row, age_group: ageGroup(row.age), join_year: year(row.date_joined) }));
  const pinGeo = join(pins, geo);
  const inCountry = pinGeo.filter((row) => row.country !== null);
  const pinUser = join(pins, user);
  const inGroup = pinUser.filter((row) => row.age_group !== null);
  const inYears = pinUser.filter((row) => isBetween(row.join_year, 2015, 2020));

  const followed = inCountry.filter((row) => row.poster_name !== null && row.follower_count !== null);
  const posters = groupBy(followed, ["country", "poster_name"]).map(({ key, rows }) => {
    return { ...key, follower_count: greatest(rows.map((row) => row.follower_count ?? 0n)) };
  });
  const topPosters = topOfEach(posters, "country", "follower_count");
  const countries = groupBy(topPosters, ["country", "follower_count"]).map(({ key }) => key);
  const most = greatest(countries.map((row) => row.follower_count));
  const joined = groupBy(user, ["join_year"]).filter(({ key }) => isBetween(key.join_year, 2015, 2020));

  const results = {
    top_category_by_country: topOfEach(countCategories(inCountry, "country"), "country", "category_count"),
    category_by_year: countCategories(pinGeo, "post_year").filter((row) => isBetween(row.post_year, 2018, 2022)),
    top_poster_by_country: topPosters,
    top_country: countries.filter((row) => row.follower_count === most),
    top_category_by_age_group: topOfEach(countCategories(inGroup, "age_group"), "age_group", "category_count"),
    median_followers_by_age_group: medians(inGroup, ["age_group"]),
    users_joined_by_year: joined.map(({ key, rows }) => {
      return { ...key, number_users_joined: BigInt(groupBy(rows, ["user_name", "age", "date_joined"]).length) };
    }),
    median_followers_by_join_year: medians(inYears, ["join_year"]),
    median_followers_by_join_year_and_age_group: medians(
      inYears.filter((row) => row.age_group !== null),
      ["age_group", "join_year"],
    ),
  };
  for (const rows of Object.values(results)) (rows as object[]).sort(byColumns);
  return results;
}

function join<A extends { ind: bigint }, B extends { ind: bigint }>(ones: A[], others: B[]): (A & B)[] {
  const byInd = new Map(others.map((other) => [other.ind, other]));
  return ones.flatMap((one) => {
    const other = byInd.get(one.ind);
    return other === undefined ? [] : [{ ...other, ...one }];
  });
}

function ageGroup(age: number | null): string | null {
  if (age === null || age < 18) return null;
  return age <= 24 ? "18-24" : age <= 35 ? "25-35" : age <= 50 ? "36-50" : "50+";
}

function year(microseconds: bigint | null): number | null {
  return microseconds === null ? null : new Date(Number(microseconds / 1000n)).getUTCFullYear();
}

const isBetween = (value: number | null, first: number, last: number) =>
  value !== null && value >= first && value <= last;

const greatest = (values: bigint[]): bigint => values.reduce((one, other) => (one > other ? one : other), -1n);

/** Groups rows by the values of columns; nulls are equal. */
function groupBy<R extends object, C extends keyof R>(rows: R[], columns: C[]): { key: Pick<R, C>; rows: R[] }[] {
  const groups = new Map<string, { key: Pick<R, C>; rows: R[] }>();
  for (const row of rows) {
    const key = Object.fromEntries(columns.map((column) => [column, row[column]])) as Pick<R, C>;
    const name = JSON.stringify(key, (_, cell) => (typeof cell === "bigint" ? String(cell) : cell));
    const group = groups.get(name) ?? { key, rows: [] };
    group.rows.push(row);
    groups.set(name, group);
  }
  return [...groups.values()];
}

function countCategories<R extends { category: unknown }, C extends keyof R>(rows: R[], column: C) {
  const groups = groupBy(rows, [column, "category"]);
  return groups.map(({ key, rows: members }) => ({ ...key, category_count: BigInt(members.length) }));
}

/** The rows of each group with the group's greatest measure, with ties. */
function topOfEach<M extends string, R extends Record<M, bigint>>(rows: R[], group: keyof R, measure: M): R[] {
  return groupBy(rows, [group]).flatMap(({ rows: members }) => {
    const most = greatest(members.map((row) => row[measure]));
    return members.filter((row) => row[measure] === most);
  });
}

function medians<R extends { follower_count: bigint | null }, C extends keyof R>(rows: R[], columns: C[]) {
  return groupBy(rows, columns).map(({ key, rows: members }) => {
    const counts = members.map((row) => row.follower_count).filter((count) => count !== null);
    counts.sort(compare);
    const low = counts[Math.ceil(counts.length / 2) - 1];
    const high = counts[Math.floor(counts.length / 2)];
    const twice = low === undefined || high === undefined ? null : low + high;
    return { ...key, median_follower_count: twice === null ? null : `${twice / 2n}${twice % 2n === 0n ? "" : ".5"}` };
  });
}

/** Sorts rows by their columns in order: text by its UTF-8 bytes, nulls last. */
function byColumns(one: object, other: object): number {
  const cells: unknown[] = Object.values(other);
  const differences = Object.values(one).map((cell: unknown, at) => compare(cell, cells[at]));
  return differences.find((difference) => difference !== 0) ?? 0;
}

function compare(one: unknown, other: unknown): number {
  if (one === other) return 0;
  if (one === null || other === null) return one === null ? 1 : -1;
  if (typeof one === "string" && typeof other === "string") return Buffer.compare(Buffer.from(one), Buffer.from(other));
  return (one as bigint) < (other as bigint) ? -1 : 1;
}
