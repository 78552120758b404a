/**
 * The `serve` command.
 *
 * @module
 */

import { readFile, stat } from "node:fs/promises";
import type { Commands } from "../http/page.ts";
import type { ServeFact } from "../http/server.ts";
import { fileTrouble, UsageError } from "../runtime/errors.ts";
import { programName, shellWord } from "../runtime/program.ts";
import type { Connections, Context } from "./connect.ts";

// Loaded on demand, so that other commands start sooner.
const loadServer = () => import("../http/server.ts");

/** Checks the token and the address before any service is started, and warns about a token that others can read. */
export async function checkServe(context: Context): Promise<void> {
  const { host, port, tokenFile, terminal } = context;
  const token = await readToken(context);
  if (tokenFile !== undefined && (await stat(tokenFile)).mode & 0o077)
    terminal.warn(`Others on this machine can read "${tokenFile}": run chmod 600 "${tokenFile}"`);
  const { checkAddress } = await loadServer();
  await checkAddress({ host, port, ...(token !== undefined && { token }) });
}

export async function runServe(context: Context, { mysql, kafka }: Connections): Promise<void> {
  const { terminal, signal, lake, flags, host, port } = context;
  const token = await readToken(context);
  const { serve } = await loadServer();
  const anyPrefix = flags.has("any-prefix");
  const onFact = (fact: ServeFact) => {
    terminal.notice(fact);
    if (fact.fact === "listening") {
      terminal.print(flags.has("json") ? JSON.stringify({ url: fact.url }) : `Listening on ${fact.url}`);
    }
  };
  const commands = commandsToCopy(context);
  const access = { host, port, ...(token !== undefined && { token }), anyPrefix };
  await serve({ mysql, kafka, lake, ...access, commands, signal, onFact });
}

/** The commands that the live page lets people copy, with the options that lead to the same services and lake. */
function commandsToCopy({ serviceOptions, sql, host, port, tokenFile, flags }: Context): Commands {
  const option = (name: string, value: string | undefined) =>
    value === undefined ? "" : ` --${name} ${shellWord(value)}`;
  const rules = `${serviceOptions}${option("sql", sql)}`;
  const access = `${host === "127.0.0.1" ? "" : option("host", host)}${port === 8082 ? "" : option("port", String(port))}`;
  const clients = `${option("token-file", tokenFile)}${flags.has("any-prefix") ? " --any-prefix" : ""}`;
  return {
    post: `${programName} post${serviceOptions}`,
    clean: `${programName} clean --follow${rules}`,
    rebuild: `${programName} clean --rebuild${rules}`,
    report: `${programName} report${rules}`,
    serve: `${programName} serve${rules}${access}${clients}`,
  };
}

/** The token from a file or the environment. An argument would be visible to other users. */
async function readToken({ tokenFile }: Context): Promise<string | undefined> {
  if (tokenFile !== undefined && process.env.PIPELINE_TOKEN)
    throw new UsageError("There are two tokens, in --token-file and in PIPELINE_TOKEN: remove one of them");
  const from = tokenFile === undefined ? "PIPELINE_TOKEN" : `"${tokenFile}"`;
  const text = tokenFile === undefined ? process.env.PIPELINE_TOKEN : await readSecret(tokenFile);
  const token = text?.trim();
  if (!token && tokenFile === undefined) return undefined;
  if (token && /^[\x21-\x7e]{16,500}$/.test(token)) return token;
  throw new UsageError(`The token in ${from} must have 16 to 500 printable ASCII characters without blanks`);
}

const readSecret = (path: string): Promise<string> =>
  readFile(path, "utf8").catch((error: unknown) => {
    throw new UsageError(`Cannot read the token: ${fileTrouble(error, path)}`);
  });
