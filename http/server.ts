/**
 * The HTTP server: the API that accepts rows, the live page, health checks and metrics.
 *
 * It trusts no client: bodies, records, open requests, connections and times are limited, and a foreign page in the
 * user's browser can neither post nor read.
 *
 * @module
 */

import { createServer } from "node:net";
import { hostname } from "node:os";
import { setTimeout as sleep } from "node:timers/promises";
import { type FastifyInstance, fastify } from "fastify";
import type { MysqlSettings } from "../db_conn.ts";
import { tableNames } from "../io.ts";
import { openPublisher } from "../kafka/publisher.ts";
import type { KafkaSettings } from "../kafka/settings.ts";
import { UsageError } from "../runtime/errors.ts";
import type { Notice } from "../runtime/notice.ts";
import { openBatches } from "./batches.ts";
import { bounds } from "./bounds.ts";
import { answerError, Refusal, retryAfter } from "./errors.ts";
import { protect } from "./guard.ts";
import { addIntake } from "./intake.ts";
import { type LiveStatus, openLiveStatus } from "./live.ts";
import { type Metrics, openMetrics } from "./metrics.ts";
import { addOpenApi, error, object, ok, retry, text } from "./openapi.ts";
import { addPage, type Commands } from "./page.ts";
import { openTopics } from "./topics.ts";

/** An event of the server. */
export type ServeFact = { fact: "listening"; url: string } | Notice;

/** Settings of {@link serve}. */
interface ServeOptions {
  mysql: MysqlSettings;
  kafka: KafkaSettings;
  lake: string;
  /** An address of this machine; all but loopback need a token. */
  host: string;
  /** 0 chooses a free port. */
  port: number;
  /** Clients must show it as `Authorization: Bearer` or by the page's login. Default: none. */
  token?: string;
  /** Whether `<anything>.pin` means this prefix's topic of pins, and so on. */
  anyPrefix: boolean;
  commands: Commands;
  signal: AbortSignal;
  onFact: (fact: ServeFact) => void;
}

/** About how long a request waits for the broker, ms. */
const waitMs = 10_000;
/** After a stop, requests continue for so long; then those whose commit has not begun are refused, ms. */
const drainMs = 1_200;

/**
 * Serves until the signal aborts, then finishes open requests within 3 s.
 *
 * @throws `UsageError` if other machines could connect without a token, or the address cannot be used
 */
export async function serve(options: ServeOptions): Promise<void> {
  const { kafka, lake, host, port, token, commands, signal, onFact } = options;
  checkToken(options);
  const app = fastify({
    requestTimeout: 30_000,
    connectionTimeout: 60_000,
    keepAliveTimeout: 15_000,
    maxRequestsPerSocket: 100_000,
    forceCloseConnections: "idle",
    http: { maxHeaderSize: 16_384, headersTimeout: bounds.headMs, connectionsCheckingInterval: 1_000 },
    routerOptions: { maxParamLength: 300 },
    frameworkErrors: answerError, // for paths that are no URL
  });
  const hardStop = new AbortController();
  const stopping = new Error("The server stops");
  // No other server has this address, and so none has this transactional id.
  const transactionalId = () => `${kafka.prefix}.serve.${hostname()}.${app.listeningOrigin.replace(/^.*\//, "")}`;
  await using publisher = openPublisher({ kafka, transactionalId });
  await using live = openLiveStatus(options);
  const metrics = openMetrics(() => live.snapshot(5_000));
  const topics = openTopics(kafka);
  try {
    const batches = openBatches({ publisher, waitMs, signal: hardStop.signal, onBatch: metrics.onBatch });
    app.setErrorHandler(answerError);
    const refuseMethods = collectMethods(app);
    await addOpenApi(app, kafka.prefix);
    const guard = protect(app, options);
    metrics.watch(app);
    addIntake(app, { ...options, topics, guard, store: batches.add, onRows: metrics.onRows });
    const { endStreams } = await addPage(app, { lake, live, guard, commands, needsToken: token !== undefined });
    addHealth(app, { live, metrics, signal });
    refuseMethods();
    app.setNotFoundHandler(({ method, url }) => {
      throw new Refusal(404, `There is no ${method} ${url.slice(0, 100)}; /openapi.json lists all paths`);
    });
    await app.listen({ host, port }).catch(refuseAddress(options));
    onFact({ fact: "listening", url: app.listeningOrigin });
    void live.snapshot(0); // connects, so that the first page shows numbers sooner
    const onWait = (text: string) => onFact({ fact: "waited", text: text.replace(/( waiting) up to .*/i, "$1") });
    const preparing = topics.prepare({ signal, onWait }).then(
      (warnings) => {
        for (const text of warnings) onFact({ fact: "warned", text });
      },
      (error: Error) => {
        if (!signal.aborted) onFact({ fact: "warned", text: error.message });
      },
    );
    await new Promise<void>((stop) => {
      if (signal.aborted) stop();
      else signal.addEventListener("abort", () => stop(), { once: true });
    });
    const timers = [
      setTimeout(() => hardStop.abort(stopping), drainMs),
      setTimeout(() => app.server.closeAllConnections(), drainMs + 1_200),
    ];
    endStreams();
    await app.close();
    for (const timer of timers) clearTimeout(timer);
    await preparing;
  } finally {
    hardStop.abort(stopping);
    await app.close();
  }
}

type Address = Pick<ServeOptions, "host" | "port" | "token">;

/**
 * Checks what {@link serve} would refuse, before the services are started.
 *
 * @throws `UsageError`
 */
export async function checkAddress(address: Address): Promise<void> {
  checkToken(address);
  const probe = createServer();
  await new Promise<void>((resolve, reject) => {
    probe.once("error", reject).listen({ host: address.host, port: address.port }, resolve);
  }).catch(refuseAddress(address));
  await new Promise((resolve) => probe.close(resolve));
}

function checkToken({ host, token }: Pick<Address, "host" | "token">): void {
  if (token !== undefined || /^(localhost|127(\.\d+){3}|::1)$/.test(host)) return;
  throw new UsageError(
    `Cannot serve on "${host}" without a token: other machines could post; set PIPELINE_TOKEN or --token-file, or omit --host`,
  );
}

const refuseAddress =
  ({ host, port }: Address) =>
  (error: NodeJS.ErrnoException): never => {
    const { code = "" } = error;
    let reason = error.message;
    if (code === "EADDRINUSE") reason = "another program listens there; choose another port with --port";
    if (/^(EADDRNOTAVAIL|ENOTFOUND|EAI_AGAIN)$/.test(code))
      reason = `this machine has no address "${host}"; choose another with --host`;
    throw new UsageError(`Cannot listen on ${host}, port ${port}: ${reason}`);
  };

/** Adds `/healthz`, `/readyz` and `/metrics`. */
function addHealth(
  app: FastifyInstance,
  { live, metrics, signal }: { live: LiveStatus; metrics: Metrics; signal: AbortSignal },
): void {
  const status = (value: string) => object({ status: { const: value } });
  app.get("/healthz", { schema: { summary: "Alive", security: [], response: ok("Alive", status("alive")) } }, () => ({
    status: "alive",
  }));
  const away = "Kafka is unavailable, or the server is stopping";
  const ready = {
    summary: "Kafka and the topics are available",
    security: [],
    response: { ...ok("Ready", status("ready")), "503": error(away, retry) },
  };
  app.get("/readyz", { schema: ready }, async () => {
    const snapshot = signal.aborted ? undefined : await Promise.race([live.snapshot(1_000), sleep(2_000)]);
    const known = snapshot?.tables;
    if (known && tableNames.every((table) => known[table].in_topic !== null)) return { status: "ready" };
    throw new Refusal(503, away, retryAfter(5));
  });
  const schema = { summary: "Metrics in Prometheus' text format", response: ok("Metrics", text, "text/plain") };
  app.get("/metrics", { schema }, async (_request, reply) =>
    reply.type(metrics.contentType).send(await metrics.text()),
  );
}

/** Collects the methods of every path; the returned function refuses the others with status 405. */
function collectMethods(app: FastifyInstance): () => void {
  const methods = new Map<string, Set<string>>();
  app.addHook("onRoute", ({ url, method }) => {
    const known = methods.get(url) ?? new Set();
    for (const name of [method].flat()) known.add(name);
    methods.set(url, known);
  });
  return () => {
    for (const [url, known] of [...methods]) {
      const allow = [...known].join(", ");
      const others = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE"].filter(
        (name) => !known.has(name),
      );
      const refuse = async () => {
        throw new Refusal(405, `${url} accepts only ${allow}`, { headers: { allow } });
      };
      app.route({ method: others, url, schema: { hide: true }, onRequest: refuse, handler: refuse });
    }
  };
}
