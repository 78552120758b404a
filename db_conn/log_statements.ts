/**
 * Finds statements in the log that change a table without naming the rows.
 *
 * @module
 */

/** A table and its database. */
export interface TableName {
  database: string;
  table: string;
}

const id = /(?:`((?:[^`]|``)+)`|"((?:[^"]|"")+)"|([\w$\u0080-\uffff]+))/.source;
/** The name of a table, optionally after its database and a dot. */
const name = new RegExp(`(?:${id}\\s*\\.\\s*)?${id}`, "g");

/** DDL that changes which rows a table has, or what a row is, wherever it names the table. */
const altering = /^(ALTER\s+(\w+\s+)*?TABLE|DROP\s+TABLES?|RENAME\s+TABLES?|TRUNCATE)\b/i;
/**
 * The same, but only for the first table that it names; it reads or refers to the others. With IF NOT EXISTS it changes
 * no existing table.
 */
const creating = /^CREATE\s+(?:OR\s+REPLACE\s+)?TABLE\s+(?!IF\s+NOT\s+EXISTS\b)(.*)/is;
/** Changes of rows, which are logged as statements if the format is not ROW. */
const writing = /^(INSERT|UPDATE|DELETE|REPLACE|LOAD|WITH|CALL|SELECT|DO)\b/i;
const droppingDatabase = /^DROP\s+(?:DATABASE|SCHEMA)\s+(?:IF\s+EXISTS\s+)?(.*)/is;

/**
 * Whether a statement in the log may have changed the rows of a table; `schema` is its default database. A statement
 * that has the name only in a string counts too: a needless stop is better than a missed change. Changes through a view
 * or a trigger are not found.
 */
export function touches(sql: string, schema: string, { database, table }: TableName): boolean {
  // Comments that the server executes, such as those of mysqldump, become plain text; others are removed.
  if (!sql.toLowerCase().includes(table.toLowerCase()) && !/^[\s\S]{0,100}DROP/i.test(sql)) return false;
  const plain = sql
    .replace(/\/\*M?!\d*/g, " ")
    .replace(/\/\*[\s\S]*?\*\/|\*\//g, " ")
    .trim()
    .replace(/^SET\s+STATEMENT\s.*?\sFOR\s+/is, "");
  const isOurs = (found: RegExpMatchArray) => {
    const [, ...parts] = found;
    const [place, last] = [parts.slice(0, 3).find(Boolean) ?? schema, parts.slice(3).find(Boolean) ?? ""];
    return same(place, database) && same(last, table);
  };
  const dropped = droppingDatabase.exec(plain)?.[1];
  if (dropped !== undefined)
    return [...dropped.matchAll(name)].some((found) => same(found.slice(4).find(Boolean), database));
  const created = creating.exec(plain)?.[1];
  if (created !== undefined) return [...created.matchAll(name)].slice(0, 1).some(isOurs);
  return (altering.test(plain) || writing.test(plain)) && [...plain.matchAll(name)].some(isOurs);
}

/** Whether two names are equal on a server that ignores case. */
export const same = (a: string | null | undefined, b: string): boolean => a?.toLowerCase() === b.toLowerCase();
