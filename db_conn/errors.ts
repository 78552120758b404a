/**
 * MySQL errors: which to retry, and messages for the user.
 *
 * @module
 */
import { UsageError } from "../runtime/errors.ts";

/** Converts an error of mysql2 to one whose message says what failed, where, and what to do. */
export function explainMysql(error: unknown, { host, port }: { host: string; port: number }): Error {
  const { code = "", message } = error as NodeJS.ErrnoException;
  const where = `MySQL at ${host}:${port}`;
  if (code === "ER_DBACCESS_DENIED_ERROR") {
    const [, user = "USER", database = "DATABASE"] = /user ('.*'@'.*') to database '(.*)'/.exec(message) ?? [];
    return new UsageError(
      `Cannot use ${where}: ${message}; set DATABASE, or run GRANT SELECT ON \`${database}\`.* TO ${user}`,
      { cause: error },
    );
  }
  if (/^ER_(ACCESS_DENIED|NOT_SUPPORTED_AUTH|BAD_DB)/.test(code)) {
    const what = code.includes("BAD_DB") ? "DATABASE" : "HOST, USER and PASSWORD";
    return new UsageError(`Cannot use ${where}: ${message}; check ${what} of your credentials`, { cause: error });
  }
  if (code === "HANDSHAKE_NO_SSL_SUPPORT") {
    return new UsageError(`Cannot trust ${where}: it offers no TLS, which SSL_CA of your credentials requires`, {
      cause: error,
    });
  }
  if (code === "HANDSHAKE_SSL_ERROR") {
    return new UsageError(
      `Cannot trust ${where}: ${message}; check SSL_CA of your credentials, and HOST, which must be in the server's certificate unless it is an IP address`,
      { cause: error },
    );
  }
  if (code === "ER_LOCK_WAIT_TIMEOUT") {
    return new Error(
      `Cannot read from ${where}: another session has locked a table (${message}); find it with SHOW FULL PROCESSLIST, then wait for it or end it`,
      { cause: error },
    );
  }
  if (isTransientMysql(error)) {
    const reason = message || code;
    return new Error(
      `Cannot reach ${where}: ${reason}; is it running, and are HOST and PORT of your credentials right?`,
      {
        cause: error,
      },
    );
  }
  return error as Error;
}

/** Whether a retry may succeed: the server is unavailable, stopping, full or in a deadlock, or a table was altered under a snapshot. */
export function isTransientMysql(error: unknown): boolean {
  const { name, code = "", cause, fatal } = error as NodeJS.ErrnoException & { cause?: unknown; fatal?: boolean };
  if (name.startsWith("KafkaJS")) return false; // these may have the same codes
  return (
    // mysql2's error for a connection that was lost earlier has no code.
    (fatal === true && code === "") ||
    /^(ECONN|EPIPE|ETIMEDOUT|EHOSTUNREACH|ENETUNREACH|ENOTFOUND|EAI_AGAIN|PROTOCOL_)/.test(code) ||
    /^ER_(SERVER_SHUTDOWN|CON_COUNT|TOO_MANY_USER|LOCK_WAIT|LOCK_DEADLOCK|TABLE_DEF_CHANGED|QUERY_INTERRUPTED|CONNECTION_KILLED|NET_)/.test(
      code,
    ) ||
    (cause !== undefined && isTransientMysql(cause))
  );
}
