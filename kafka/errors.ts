/**
 * Kafka errors: which to retry, and messages for the user.
 *
 * @module
 */

import { UsageError } from "../runtime/errors.ts";
import type { KafkaSettings } from "./settings.ts";

/** Converts an error of kafkajs to one whose message says what failed, where, and what to do. */
export function explainKafka(error: unknown, settings: KafkaSettings): Error {
  const cause = rootCause(error);
  const where = settings.brokers.join(", ");
  if (cannotLogIn(cause)) {
    return new UsageError(
      `Cannot log in to Kafka at ${where}: ${cause.message}; check KAFKA.SASL of your credentials`,
      {
        cause: error,
      },
    );
  }
  if (isDistrusted(cause)) {
    return new UsageError(
      `Cannot trust Kafka at ${where}: ${cause.message}; check KAFKA.SSL_CA of your credentials; the names in KAFKA.BROKERS and those that the brokers advertise must be in their certificates`,
      { cause: error },
    );
  }
  if (isConnectionError(cause)) {
    return new Error(
      `Cannot reach Kafka at ${where}: ${cause.message}; is it running, and are BROKERS, SSL and SASL of KAFKA right in your credentials?`,
      { cause: error },
    );
  }
  if (!cause.name?.startsWith("KafkaJS")) return cause;
  // Each topic that could not be created has a separate reason.
  const failures = (cause as { errors?: (Error & { type?: string })[] }).errors ?? [];
  const why = [cause.message, ...new Set(failures.map(({ message }) => message))].join(": ");
  if ([cause as Error & { type?: string }, ...failures].some(({ type }) => type?.includes("AUTHORIZATION"))) {
    return new UsageError(
      `Kafka at ${where} refuses: ${why}; grant the user of KAFKA.SASL the permissions that topics ${settings.prefix}.* need (see docs/own-services.md)`,
      { cause: error },
    );
  }
  return new Error(`Kafka at ${where} fails: ${why}`, { cause: error });
}

export function rootCause(error: unknown): Error {
  let cause = error as Error;
  while (cause?.name?.startsWith("KafkaJS") && cause.cause instanceof Error) cause = cause.cause;
  return cause;
}

/** Whether the broker refused the login, its mechanism or any login. A retry cannot succeed. */
const cannotLogIn = (error: Error & { type?: string }): boolean =>
  error.name === "KafkaJSSASLAuthenticationError" || /SASL/.test(error.type ?? "");

/** Whether the certificate was refused. A retry cannot succeed. */
const isDistrusted = (error: Error): boolean =>
  /CERT|SELF_SIGNED|UNABLE_TO_(GET|VERIFY)/.test((error as { code?: string }).code ?? "");

// kafkajs throws a plain Error "Broker not connected" if a connection is lost between two of its steps.
const isConnectionError = (error: Error): boolean =>
  /^KafkaJS(Connection|ConnectionClosed|RequestTimeout|BrokerNotFound|NoBrokerAvailable|LockTimeout|Timeout|GroupCoordinatorNotFound)/.test(
    error.name,
  ) ||
  error.message === "Broker not connected" ||
  /ECONN|EPIPE|ETIMEDOUT|EHOSTUNREACH|ENETUNREACH|ENOTFOUND|EAI_AGAIN/.test((error as { code?: string }).code ?? "");

/** An error to retry, marked as kafkajs marks its errors. */
export const retriable = (message: string): Error => Object.assign(new Error(message), { retriable: true });

/** Whether a retry may succeed: the broker is unavailable, moving or slow, or has ended the transaction. */
export function isTransientKafka(error: unknown): boolean {
  if (error instanceof UsageError) return false;
  const cause = rootCause(error instanceof Error && error.cause instanceof Error ? error.cause : error);
  const { name = "", type, retriable } = cause as Error & { type?: string; retriable?: boolean };
  if (isDistrusted(cause) || cannotLogIn(cause)) return false;
  if (retriable === true || isConnectionError(cause)) return true;
  // Error codes of the broker. A new producer fixes those of transactions. A retry fixes UNKNOWN (-1), which the broker
  // returns when two clients start at the same time.
  if (type !== undefined) {
    return (
      !type.includes("AUTHORIZATION") &&
      /PRODUCER|TXN|TRANSACTION|OUT_OF_ORDER_SEQUENCE|COORDINATOR|GROUP_|^UNKNOWN$/.test(type)
    );
  }
  // Errors of kafkajs itself: it lost track of brokers, or a discarded producer was still in use.
  return name.startsWith("KafkaJS");
}
