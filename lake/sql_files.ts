/**
 * The files of `sql/`: the program's own, or those of a folder that the user edits (`--sql DIR`).
 *
 * @module
 */
import { createHash } from "node:crypto";
import { existsSync, mkdirSync, readdirSync, readFileSync, statSync, writeFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { tableNames } from "../io.ts";
import { UsageError } from "../runtime/errors.ts";
import { ownFiles, ownText } from "../runtime/program.ts";
import { diskIsFull } from "./files.ts";
import { blockKeys, sharedFrom } from "./silver.ts";

let edited: string | undefined;

/**
 * Takes the files of a folder before the program's own, for as long as the program runs. Files that it does not have
 * are the program's own; where it has a folder `answers`, these are all answers.
 *
 * @throws `UsageError` where it is no folder, or has a file that the program would not look at
 */
export function useSqlFolder(folder: string): void {
  if (!statSync(folder, { throwIfNoEntry: false })?.isDirectory())
    throw new UsageError(`--sql "${folder}" is no folder; "eject" writes one`);
  const known = new Set([...ownSql(""), ...tableNames.map((table) => `clean_${table}.sql`)]);
  const unknown = readdirSync(folder).find((name) => isSql(name) && !known.has(name));
  if (unknown)
    throw new UsageError(
      `--sql "${folder}": nothing uses "${unknown}"; expected ${[...known].join(", ")}, or answers/NUMBER_NAME.sql`,
    );
  edited = folder;
}

/** Those that begin with a dot are an editor's. */
const isSql = (name: string) => /^[^.].*\.sql$/.test(name);

const ownSql = (folder: string) => ownFiles(join("sql", folder)).filter(isSql);

/** The path of an SQL file, for people: where it is edited, else below the program's folder. */
export function sqlPath(name: string): string {
  const path = edited && join(edited, name);
  return path && existsSync(path) ? path : `sql/${name}`;
}

/** One of the files of sql/. */
export function readSql(name: string): string {
  const path = sqlPath(name);
  return path.startsWith("sql/") ? ownText(path) : readFileSync(path, "utf8");
}

/** The names of the SQL files in a folder of sql/, sorted. */
export function listSql(folder: string): string[] {
  const path = edited && join(edited, folder);
  return (path && existsSync(path) ? readdirSync(path).filter(isSql) : ownSql(folder)).sort();
}

/** Names the SQL file in an error of DuckDB. Other errors stay as they are, and so does a full disk. */
export function explainSql(name: string, error: unknown): Error {
  const { message } = error as Error;
  if (!/^[A-Z][\w ]* Error: /.test(message) || diskIsFull.test(message)) return error as Error;
  return new Error(`Cannot run "${sqlPath(name)}": ${message}`, { cause: error });
}

/** A hash of what silver depends on: prelude, cleaning, and which keys share a file. */
export function sqlHash(): string {
  const hash = createHash("sha256").update(`${blockKeys} ${sharedFrom}`);
  for (const name of ["prelude.duckdb.sql", "deletes.sql", ...tableNames.map((table) => `clean_${table}.sql`)]) {
    hash.update(readSql(name));
  }
  return hash.digest("hex");
}

/**
 * Writes the files of `sql/` into a folder, to be edited there, and the example of credentials.
 *
 * @returns how many files of SQL
 * @throws `UsageError` where one of them is there already; then nothing is written. Where they cannot be written
 */
export function ejectSql(folder: string): number {
  const names = [...ownSql(""), ...ownSql("answers").map((name) => `answers/${name}`)];
  const there = names.find((name) => existsSync(join(folder, name)));
  if (there) throw new UsageError(`"${join(folder, there)}" is there already: choose an empty folder`);
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
