/**
 * What Kafka errors mean: whether to retry, and what to tell the user.
 *
 * @module
 */

import { UsageError } from "../runtime/errors.ts";
import type { KafkaSettings } from "./settings.ts";

/** Says in one line what Kafka refused, where, and what to do about it. */
export function explainKafka(error: unknown, settings: KafkaSettings): Error {
  const cause = rootCause(error);
  const where = settings.brokers.join(", ");
  if (cannotLogIn(cause)) {
    return new UsageError(
      `Cannot log in to Kafka at ${where}: ${cause.message}; look at KAFKA.SASL of your credentials`,
      {
        cause: error,
      },
    );
  }
  if (isDistrusted(cause)) {
    return new UsageError(
      `Cannot trust Kafka at ${where}: ${cause.message}; look at KAFKA.SSL_CA of your credentials, and at the names in KAFKA.BROKERS and those that the brokers advertise, which must stand in their certificates`,
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
  // Of topics that could not be made, each has its own reason.
  const failures = (cause as { errors?: (Error & { type?: string })[] }).errors ?? [];
  const why = [cause.message, ...new Set(failures.map(({ message }) => message))].join(": ");
  if ([cause as Error & { type?: string }, ...failures].some(({ type }) => type?.includes("AUTHORIZATION"))) {
    return new UsageError(
      `Kafka at ${where} refuses: ${why}; grant the user of KAFKA.SASL what the topics ${settings.prefix}.* need (see deploy/README.md)`,
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

/** Whether the broker refused the login, its mechanism or any login: no later try will do better. */
const cannotLogIn = (error: Error & { type?: string }): boolean =>
  error.name === "KafkaJSSASLAuthenticationError" || /SASL/.test(error.type ?? "");

/** Whether the certificate was refused: no later try will do better. */
const isDistrusted = (error: Error): boolean =>
  /CERT|SELF_SIGNED|UNABLE_TO_(GET|VERIFY)/.test((error as { code?: string }).code ?? "");

// kafkajs says "Broker not connected" by a plain Error where a connection was lost between two of its own steps.
const isConnectionError = (error: Error): boolean =>
  /^KafkaJS(Connection|ConnectionClosed|RequestTimeout|BrokerNotFound|NoBrokerAvailable|LockTimeout|Timeout|GroupCoordinatorNotFound)/.test(
    error.name,
  ) ||
  error.message === "Broker not connected" ||
  /ECONN|EPIPE|ETIMEDOUT|EHOSTUNREACH|ENETUNREACH|ENOTFOUND|EAI_AGAIN/.test((error as { code?: string }).code ?? "");

/** An error that may be gone at the next try, in kafkajs' own way. */
export const retriable = (message: string): Error => Object.assign(new Error(message), { retriable: true });

/** kafkajs forgets a partition whose leader moved meanwhile: what was sent to it may be there or not. */
export const unacknowledged = (topic: string, partition: number | undefined): Error =>
  retriable(`Partition ${partition} of topic "${topic}" did not acknowledge`);

/** Whether an error may be gone at the next try: the broker is away, moving or slow, or has ended our transaction. */
export function isTransientKafka(error: unknown): boolean {
  if (error instanceof UsageError) return false;
  const cause = rootCause(error instanceof Error && error.cause instanceof Error ? error.cause : error);
  const { name = "", type, retriable } = cause as Error & { type?: string; retriable?: boolean };
  if (isDistrusted(cause) || cannotLogIn(cause)) return false;
  if (retriable === true || isConnectionError(cause)) return true;
  // The broker's own answers, by type: what concerns a transaction is mended by a new producer, and a broker that does
  // not know what went wrong (-1), as where two clients begin at once, by asking again.
  if (type !== undefined) {
    return (
      !type.includes("AUTHORIZATION") &&
      /PRODUCER|TXN|TRANSACTION|OUT_OF_ORDER_SEQUENCE|COORDINATOR|GROUP_|^UNKNOWN$/.test(type)
    );
  }
  // kafkajs' own: it lost track of brokers, or a producer that is thrown away was still in use.
  return name.startsWith("KafkaJS");
}
