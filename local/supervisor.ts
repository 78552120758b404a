/**
 * The process that owns the services of one data folder. It starts the services that its clients request, and stops
 * them and itself when the last client has left, unless a client asked to keep them. {@link useServices} starts it as
 * `supervise.ts FOLDER`.
 *
 * @module
 */

import { randomBytes } from "node:crypto";
import { rmSync } from "node:fs";
import { createServer, type Socket } from "node:net";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { stringify } from "yaml";
import { isHeld, takeLock } from "../runtime/lock.ts";
import { checkMode, keepClasses, startKafka, startZookeeper } from "./broker.ts";
import { startMysql } from "./mariadb.ts";
import { endOrphan, freePort, type Guarded, identifySelf, showWait, spawnGuarded, type Tools } from "./processes.ts";
import { findPrograms, type Programs } from "./programs.ts";
import {
  type Addresses,
  credsPath,
  inodeOf,
  lockPath,
  type Reply,
  type Request,
  readLines,
  readState,
  type ServiceName,
  type State,
  writePrivate,
} from "./state.ts";

/** Time for a client to send its request, ms: a stranger without the token cannot hold a connection. */
const requestDeadline = 3_000;

/** Owns the services of a folder until no client needs them. An error is one line of its log, which the caller shows. */
export const supervise = (folder: string): Promise<void> =>
  own(folder).catch(({ message, stack }: Error) => {
    console.error(process.env.DEBUG ? stack : `Error: ${message}`);
    process.exit(1);
  });

async function own(folder: string): Promise<void> {
  const lock = await takeFolder(folder);
  rmSync(credsPath(folder), { force: true }); // of a killed supervisor
  const former = readState(folder);
  await Promise.all((former?.children ?? []).map((child) => endOrphan(child, former?.folder ?? folder)));

  const address = { port: await freePort(), token: randomBytes(16).toString("hex") };
  const file = openStateFile({
    folder,
    inode: inodeOf(folder),
    password: former?.password ?? randomBytes(18).toString("base64url"),
    ports: former?.ports ?? {},
    supervisor: identifySelf(),
    control: address,
    children: [],
    ready: {},
  });
  const stopping = new AbortController();
  const { signal } = stopping;
  const control = openControl(address, {
    signal,
    onListening: file.begin,
    onUse: (wanted, keep) => services.use(wanted, keep),
    onLeave: endIfUnused,
    onStop: end,
  });
  const processes = openProcesses(file, signal);
  const { say, onProgress } = control;
  const services = openServices(file, { signal, say, onProgress, spawn: processes.spawn });
  for (const name of ["SIGTERM", "SIGINT", "SIGHUP"] as const) process.on(name, end);
  process.on("exit", file.dropCreds); // also after an error
  // If the folder is deleted, no program can find the services any more.
  setTimeout(() => setInterval(() => file.isOurs() || end(), 2_000), 5_000);
  setTimeout(endIfUnused, 5_000); // the program that started this process may have died before it connected

  function endIfUnused() {
    if (!control.isUsed() && !file.state.keep) end();
  }

  function end() {
    if (signal.aborted) return;
    stopping.abort(new Error("The services were stopped"));
    control.close(); // before the services end, so that no program takes it for a failure of one of them
    // ZooKeeper last: a stopping Kafka reports to it, and would wait for it.
    void processes.stopAll({ last: services.zookeeper() }).then(() => {
      file.end();
      lock.closeSync();
      process.exit(0); // closes the connections, which clients wait for
    });
  }
}

type StateFile = ReturnType<typeof openStateFile>;

/** `state.json` and the credentials file. They are not touched once the folder belongs to another supervisor. */
function openStateFile(state: State & Required<Pick<State, "inode">>) {
  const { folder, inode, password, ports } = state;
  const write = (content: State) => writePrivate(join(folder, "state.json"), JSON.stringify(content, null, 2));
  const isOurs = () => readState(folder)?.supervisor?.pid === process.pid;
  const save = () => {
    if (isOurs()) write(state);
  };
  const dropCreds = () => {
    if (isOurs()) rmSync(credsPath(folder), { force: true });
  };
  return {
    state,
    isOurs,
    save,
    dropCreds,
    begin: () => write(state),
    publish(ready: Addresses) {
      Object.assign(state.ready, ready);
      save();
      writeCreds(folder, state.ready);
    },
    /** A port for a service: the last one, if it is free. */
    async port(name: string) {
      ports[name] = await freePort(ports[name]);
      return ports[name];
    },
    /** Keeps the password and the ports for the next start. */
    end() {
      if (!isOurs()) return;
      dropCreds();
      write({ folder, inode, password, ports, children: [], ready: {} });
    },
  };
}

/** Starts processes, and records them in the state for the successor of a killed supervisor. */
function openProcesses({ state, save }: StateFile, signal: AbortSignal) {
  const running = new Set<Guarded>();
  const note = () => {
    state.children = [...running].map(({ id }) => id);
    save();
  };
  return {
    spawn: (...args: Parameters<typeof spawnGuarded>) => {
      signal.throwIfAborted();
      const child = spawnGuarded(...args);
      running.add(child);
      note();
      void child.ended.then(() => {
        running.delete(child);
        note();
      });
      return child;
    },
    async stopAll({ last }: { last: Guarded | undefined }) {
      await Promise.all([...running].filter((child) => child !== last).map((child) => child.stop()));
      await last?.stop();
    },
  };
}

/** The services: each is started at its first use, and again after it has ended. */
function openServices(file: StateFile, tools: Tools) {
  const { state, port, publish } = file;
  const { folder } = state;
  const services = new Map<ServiceName, Promise<void>>();
  const processes: Partial<Record<ServiceName, Guarded>> = {};

  const start = {
    async mysql({ mysql: program }: Programs) {
      if (!program) return;
      const at = await port("mysql");
      const { password } = state;
      const address = { host: "127.0.0.1", port: at, user: "pipeline", password, database: "pinterest_data" };
      await follow("mysql", program.name, at, startMysql(program, { folder, address }, tools));
      publish({ mysql: address });
    },
    async zookeeper({ kafka: program }: Programs) {
      if (!program) return;
      const at = await port("zookeeper");
      await follow("zookeeper", "ZooKeeper", at, startZookeeper(program, { folder, port: at }, tools));
    },
    async kafka({ kafka: program }: Programs, keep: boolean) {
      if (!program) return;
      const byZookeeper = services.get("zookeeper");
      await byZookeeper;
      if (!byZookeeper) await keepClasses(program, folder, tools);
      const partner = byZookeeper
        ? { zookeeper: state.ports.zookeeper as number }
        : { controller: await port("controller") };
      const ports = { broker: await port("kafka"), ...partner };
      const place = { folder, ports, brief: !(keep || state.keep) };
      await follow("kafka", program.name, ports.broker, startBeside(processes.zookeeper, program, place, tools));
      publish({ kafka: { brokers: [`127.0.0.1:${ports.broker}`] } });
    },
  } satisfies Record<ServiceName, unknown>;

  /** Waits until a service is ready, and reports its end. */
  async function follow(service: ServiceName, name: string, at: number, starting: Promise<Guarded>) {
    const began = Date.now();
    const guarded = await showWait(starting, `Starting ${name}`, tools);
    processes[service] = guarded;
    tools.say(`${name} is ready on 127.0.0.1:${at} (${((Date.now() - began) / 1_000).toFixed(1)} s)`);
    void guarded.ended.then((how) => {
      services.delete(service);
      if (service !== "zookeeper") delete state.ready[service];
      if (tools.signal.aborted) return;
      if (service === "mysql") file.dropCreds();
      file.save();
      if (processes[service] !== guarded) return;
      tools.say(`${name} ended unexpectedly (${how}); its log is in "${folder}". The next command starts it again`);
    });
  }

  return {
    zookeeper: () => processes.zookeeper,
    async use(wanted: ServiceName[], keep: boolean): Promise<Reply> {
      const { zookeeper: former } = state.ports;
      const isBereft = wanted.includes("zookeeper") && !services.has("zookeeper") && services.has("kafka");
      if (isBereft && (await freePort(former)) !== former) {
        tools.say(`Port ${former} of ZooKeeper is taken; ZooKeeper and Kafka start again with another one`);
        const { kafka } = processes; // it would look for ZooKeeper on the former port
        delete processes.kafka;
        await kafka?.stop();
      }
      const missing = wanted.filter((service) => !services.has(service));
      if (wanted.includes("kafka")) checkMode(folder, { zookeeper: wanted.includes("zookeeper") });
      const programs = findPrograms(missing.includes("kafka") ? wanted : missing, tools); // a restarted Kafka must support the ZooKeeper
      for (const service of missing) {
        const started = programs.then((found) => start[service](found, keep));
        services.set(service, started);
        started.catch(() => services.delete(service)); // the next client tries again
      }
      await Promise.all(wanted.map((service) => services.get(service)));
      const ended = wanted.find((service) => !services.has(service));
      if (ended) throw endedEarly(ended, folder);
      state.keep ||= keep;
      file.save();
      return { ready: state.ready, keep: state.keep };
    },
  };
}

/** Starts Kafka; gives up if its ZooKeeper ends meanwhile. */
async function startBeside(
  keeper: Guarded | undefined,
  ...[program, place, tools]: Parameters<typeof startKafka>
): Promise<Guarded> {
  const gone = new AbortController();
  void keeper?.ended.then(() => gone.abort());
  try {
    return await startKafka(program, place, { ...tools, signal: AbortSignal.any([tools.signal, gone.signal]) });
  } catch (error) {
    throw gone.signal.aborted ? endedEarly("zookeeper", place.folder) : error;
  }
}

const endedEarly = (service: ServiceName, folder: string) =>
  new Error(
    `Cannot use the local services: ${service} ended before the others were ready; its log is in "${folder}". The same command starts it again`,
  );

/** Callbacks of {@link openControl}. */
interface ControlOptions {
  /** Aborted when the supervisor ends; later requests are refused. */
  signal: AbortSignal;
  onListening: () => void;
  onUse: (wanted: ServiceName[], keep: boolean) => Promise<Reply>;
  /** A client that used the services has left. */
  onLeave: () => void;
  onStop: () => void;
}

/** The server on the control port. A client stays connected as long as it uses the services. */
function openControl({ port, token }: { port: number; token: string }, options: ControlOptions) {
  const { signal, onListening, onUse, onLeave, onStop } = options;
  const clients = new Set<Socket>();
  // The token comes first in a request, so that a stranger is refused before the line ends.
  const opening = Buffer.from(JSON.stringify({ token }).slice(0, -1));
  const use = async (socket: Socket, wanted: ServiceName[], keep: boolean) => {
    clients.add(socket);
    send(socket, { heard: true }); // at once: a client gives up on a process that does not answer
    const failed = (error: unknown) => ({ error: error instanceof Error ? error.message : String(error) });
    send(socket, await onUse(wanted, keep).catch(failed));
  };
  // A half-closed connection stays open until this side ends it.
  const server = createServer({ allowHalfOpen: true }, (socket) => {
    const leave = () => {
      if (clients.delete(socket)) onLeave();
      if (!signal.aborted) socket.end();
    };
    socket.on("error", () => {}).on("end", leave);
    socket.on("close", leave);
    const late = setTimeout(() => socket.destroy(), requestDeadline);
    socket.on("close", () => clearTimeout(late));
    readLines(socket, {
      opening,
      onLine: (line) => {
        clearTimeout(late);
        const request = parse(line);
        if (request?.token !== token || signal.aborted) socket.destroy();
        else if ("stop" in request) onStop();
        else void use(socket, request.use, request.keep);
      },
    });
  });
  server.listen(port, "127.0.0.1", onListening);
  return {
    isUsed: () => clients.size > 0,
    say: (line: string) => {
      console.error(`${new Date().toISOString()} ${line}`); // to supervisor.log
      for (const client of clients) send(client, { say: line });
    },
    onProgress: (progress: string, text?: string) => {
      for (const client of clients) send(client, { progress, ...(text !== undefined && { text }) });
    },
    close() {
      for (const client of clients) send(client, { stopped: true });
      server.close();
    },
  };
}

const send = (socket: Socket, reply: Reply) => socket.write(`${JSON.stringify(reply)}\n`);

/** A request; undefined if it is not JSON. */
function parse(line: string): Request | undefined {
  try {
    return JSON.parse(line) as Request;
  } catch {
    return undefined;
  }
}

/** Takes the lock of the folder, which has one supervisor. */
async function takeFolder(folder: string) {
  const deadline = Date.now() + 6_000; // the previous supervisor may be ending
  for (;;) {
    try {
      return await takeLock(lockPath(folder));
    } catch (error) {
      if (!isHeld(error)) throw error;
      if (Date.now() > deadline) process.exit(0); // it keeps running, and the program has found it
      await sleep(30);
    }
  }
}

/** Writes a db_creds.yaml for other programs and for people. */
function writeCreds(folder: string, { mysql, kafka }: Addresses) {
  if (!mysql) return;
  const { host, port, user, password, database } = mysql;
  const creds = { HOST: host, PORT: port, USER: user, PASSWORD: password, DATABASE: database };
  writePrivate(
    credsPath(folder),
    `# Written by the program; valid while its services run.\n${stringify({ ...creds, ...(kafka && { KAFKA: { BROKERS: kafka.brokers } }) })}`,
  );
}
