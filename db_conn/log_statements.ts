/**
 * Which statements of the log change a table without naming the rows.
 *
 * @module
 */

/** A table of a database. */
export interface TableName {
  database: string;
  table: string;
}

const id = /(?:`((?:[^`]|``)+)`|"((?:[^"]|"")+)"|([\w$\u0080-\uffff]+))/.source;
/** A name of a table: perhaps its database, and a dot. */
const name = new RegExp(`(?:${id}\\s*\\.\\s*)?${id}`, "g");

/** DDL that changes which rows a table has, or what a row is, wherever it names the table. */
const altering = /^(ALTER\s+(\w+\s+)*?TABLE|DROP\s+TABLES?|RENAME\s+TABLES?|TRUNCATE)\b/i;
/**
 * The same of the table that stands next; others are read or referred to. With IF NOT EXISTS it changes no table that
 * is there.
 */
const creating = /^CREATE\s+(?:OR\s+REPLACE\s+)?TABLE\s+(?!IF\s+NOT\s+EXISTS\b)(.*)/is;
/** Changes of rows, which stand in the log as statements where its format is not ROW. */
const writing = /^(INSERT|UPDATE|DELETE|REPLACE|LOAD|WITH|CALL|SELECT|DO)\b/i;
const droppingDatabase = /^DROP\s+(?:DATABASE|SCHEMA)\s+(?:IF\s+EXISTS\s+)?(.*)/is;

/**
 * Whether a statement that stands in the log may have changed the rows of a table; `schema` is the database in which it
 * was made. One that names the table only in a text counts too: to stop for nothing is better than to miss a change. A
 * statement that changes it through a view or a trigger does not show.
 */
export function touches(sql: string, schema: string, { database, table }: TableName): boolean {
  // Comments that the server executes, as those of mysqldump, become plain text; others go.
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

/** Whether two names are one, as a server may take them that does not tell upper case from lower. */
export const same = (a: string | null | undefined, b: string): boolean => a?.toLowerCase() === b.toLowerCase();
