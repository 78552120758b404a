/**
 * The `serve` command: the HTTP server's token, address and messages.
 *
 * @module
 */

import { readFile, stat } from "node:fs/promises";
import type { ServeFact } from "../http/server.ts";
import { UsageError } from "../runtime/errors.ts";
import type { Connections, Context } from "./connect.ts";
import type { Terminal } from "./terminal.ts";

// Loaded by this command alone: the others start sooner.
const loadServer = () => import("../http/server.ts");

/** Checks the token and the address before any service is started. */
export async function checkServe(context: Context): Promise<void> {
  const { host, port } = context;
  const token = await readToken(context);
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
  await serve({ mysql, kafka, lake, host, port, ...(token !== undefined && { token }), anyPrefix, signal, onFact });
}

/** The token that clients must show, by file or environment; never by an argument, which others could see. */
async function readToken({ tokenFile, terminal }: Context): Promise<string | undefined> {
  if (tokenFile !== undefined && process.env.PIPELINE_TOKEN)
    throw new UsageError("There are two tokens, of --token-file and of PIPELINE_TOKEN: leave one of them out");
  const from = tokenFile === undefined ? "PIPELINE_TOKEN" : `"${tokenFile}"`;
  const text = tokenFile === undefined ? process.env.PIPELINE_TOKEN : await readSecret(tokenFile, terminal);
  const token = text?.trim();
  if (!token && tokenFile === undefined) return undefined;
  if (token && /^[\x21-\x7e]{16,500}$/.test(token)) return token;
  throw new UsageError(`The token of ${from} must be 16 to 500 characters, printable ASCII without blanks`);
}

async function readSecret(path: string, terminal: Terminal): Promise<string> {
  const found = await stat(path).catch((error: Error) => {
    throw new UsageError(`Cannot read the token: ${error.message}`);
  });
  if (found.mode & 0o077) terminal.warn(`Others on this machine can read "${path}": run chmod 600 "${path}"`);
  return readFile(path, "utf8");
}
