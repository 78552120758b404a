/**
 * The files of `sql/`: those of the program, or edited ones in a folder (`--sql DIR`).
 *
 * @module
 */
import { createHash } from "node:crypto";
import { existsSync, mkdirSync, readdirSync, readFileSync, statSync, writeFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { tableNames } from "../io.ts";
import { UsageError } from "../runtime/errors.ts";
import { ownFiles, ownText } from "../runtime/program.ts";
import { diskIsFull, isDamaged } from "./files.ts";
import { blockKeys, sharedFrom } from "./silver.ts";

let edited: string | undefined;

/**
 * From now on uses the SQL files of a folder instead of the program's. Files that it does not have come from the
 * program. A folder `answers` in it replaces all answers.
 *
 * @throws `UsageError` if it is not a folder, or holds an SQL file that nothing uses
 */
export function useSqlFolder(folder: string): void {
  if (!statSync(folder, { throwIfNoEntry: false })?.isDirectory())
    throw new UsageError(`--sql "${folder}" is not a folder; "eject" writes one`);
  const known = new Set([...ownSql(""), ...tableNames.map((table) => `clean_${table}.sql`)]);
  const unknown = readdirSync(folder).find((name) => isSql(name) && !known.has(name));
  if (unknown)
    throw new UsageError(
      `--sql "${folder}": "${unknown}" is not used by anything; expected ${[...known].join(", ")}, or answers/NUMBER_NAME.sql`,
    );
  edited = folder;
}

/** Names that start with a dot are temporary files of editors. */
const isSql = (name: string) => /^[^.].*\.sql$/.test(name);

const ownSql = (folder: string) => ownFiles(join("sql", folder)).filter(isSql);

/** The path of an SQL file for messages: the edited file, or `sql/NAME`. */
export function sqlPath(name: string): string {
  const path = edited && join(edited, name);
  return path && existsSync(path) ? path : `sql/${name}`;
}

/** The text of an SQL file. */
export function readSql(name: string): string {
  const path = sqlPath(name);
  return path.startsWith("sql/") ? ownText(path) : readFileSync(path, "utf8");
}

/** Literals, quoted names, comments, blanks and other characters of SQL. */
const sqlTokens = /'[^']*'|"[^"]*"|--.*|\/\*[\s\S]*?\*\/|\s+|[\s\S]/g;

/** The query of an SQL file, to use in a statement: without a semicolon, blanks and comments at its end. */
export function readQuery(name: string): string {
  const sql = readSql(name);
  const ends = [...sql.matchAll(sqlTokens)].filter(([token]) => !/^(--|\/\*|\s)/.test(token));
  const last = ends.at(-1);
  if (!last) return "";
  return sql.slice(0, last.index + (last[0] === ";" ? 0 : last[0].length));
}

/** The sorted names of the SQL files in a folder of `sql/`. */
export function listSql(folder: string): string[] {
  const path = edited && join(edited, folder);
  return (path && existsSync(path) ? readdirSync(path).filter(isSql) : ownSql(folder)).sort();
}

/** Names the SQL file in an error of DuckDB. Returns other errors unchanged, also those of a full disk or a damaged file. */
export function explainSql(name: string, error: unknown): Error {
  const { message } = error as Error;
  if (!/^[A-Z][\w ]* Error: /.test(message) || diskIsFull.test(message) || isDamaged.test(message))
    return error as Error;
  return new Error(`Cannot run "${sqlPath(name)}": ${message}`, { cause: error });
}

/** A hash of everything that silver depends on: prelude, cleaning SQL, and the size of key blocks. */
export function sqlHash(): string {
  const hash = createHash("sha256").update(`${blockKeys} ${sharedFrom}`);
  for (const name of ["prelude.duckdb.sql", "deletes.sql", ...tableNames.map((table) => `clean_${table}.sql`)]) {
    hash.update(readSql(name));
  }
  return hash.digest("hex");
}

/**
 * Writes the files of `sql/` and the example of credentials into a folder.
 *
 * @returns the number of SQL files
 * @throws `UsageError` if one of the files exists, before anything is written, or if a file cannot be written
 */
export function ejectSql(folder: string): number {
  const names = [...ownSql(""), ...ownSql("answers").map((name) => `answers/${name}`)];
  const there = names.find((name) => existsSync(join(folder, name)));
  if (there) throw new UsageError(`"${join(folder, there)}" exists already: choose an empty folder`);
  const write = (name: string, own: string) => {
    mkdirSync(dirname(join(folder, name)), { recursive: true });
    writeFileSync(join(folder, name), ownText(own), { flag: "wx" });
  };
  try {
    for (const name of names) write(name, `sql/${name}`);
    if (!existsSync(join(folder, "db_creds.example.yaml"))) write("db_creds.example.yaml", "db_creds.example.yaml");
  } catch (error) {
    throw new UsageError(`Cannot write to "${folder}": ${(error as Error).message}`, { cause: error });
  }
  return names.length;
}
