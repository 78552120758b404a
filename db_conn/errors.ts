/**
 * MySQL's errors: which may be gone at the next try, and what to tell the user.
 *
 * @module
 */
import { UsageError } from "../runtime/errors.ts";

/** Says in one line what MySQL refused, where, and what to do about it. */
export function explainMysql(error: unknown, { host, port }: { host: string; port: number }): Error {
  const { code = "", message } = error as NodeJS.ErrnoException;
  const where = `MySQL at ${host}:${port}`;
  if (/^ER_(ACCESS_DENIED|DBACCESS_DENIED|NOT_SUPPORTED_AUTH|BAD_DB)/.test(code)) {
    const what = code.includes("BAD_DB")
      ? "DATABASE"
      : `HOST, USER${code.includes("DBACCESS") ? ", DATABASE" : ""} and PASSWORD`;
    return new UsageError(`Cannot use ${where}: ${message}; look at ${what} of your credentials`, { cause: error });
  }
  if (code === "HANDSHAKE_NO_SSL_SUPPORT") {
    return new UsageError(`Cannot trust ${where}: it offers no TLS, which SSL_CA of your credentials asks for`, {
      cause: error,
    });
  }
  if (code === "HANDSHAKE_SSL_ERROR") {
    return new UsageError(
      `Cannot trust ${where}: ${message}; look at SSL_CA of your credentials, and at HOST, which must stand in the server's certificate unless it is an address`,
      { cause: error },
    );
  }
  if (code === "ER_LOCK_WAIT_TIMEOUT") {
    return new Error(
      `Cannot read from ${where}: another session has locked a table (${message}); SHOW FULL PROCESSLIST there names the session, wait for it or end it`,
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

/** Whether an error of mysql2 may be gone at the next try: the server is away, stopping, full or in a deadlock, or a table was changed under a snapshot. */
export function isTransientMysql(error: unknown): boolean {
  const { name, code = "", cause, fatal } = error as NodeJS.ErrnoException & { cause?: unknown; fatal?: boolean };
  if (name.startsWith("KafkaJS")) return false; // these may carry the same codes
  return (
    // mysql2's own error for a connection that was lost before has no code.
    (fatal === true && code === "") ||
    /^(ECONN|EPIPE|ETIMEDOUT|EHOSTUNREACH|ENETUNREACH|ENOTFOUND|EAI_AGAIN|PROTOCOL_)/.test(code) ||
    /^ER_(SERVER_SHUTDOWN|CON_COUNT|TOO_MANY_USER|LOCK_WAIT|LOCK_DEADLOCK|TABLE_DEF_CHANGED|QUERY_INTERRUPTED|CONNECTION_KILLED|NET_)/.test(
      code,
    ) ||
    (cause !== undefined && isTransientMysql(cause))
  );
}
