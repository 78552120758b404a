/**
 * The process that owns the services of one data folder: it starts what its clients ask for, and ends everything,
 * itself included, when the last client is gone, unless one of them said "keep". {@link useServices} starts it as
 * `node --import tsx supervisor.ts FOLDER`.
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
import { endOrphan, freePort, type Guarded, identifySelf, spawnGuarded } from "./processes.ts";
import { findPrograms, type Programs, type Tools } from "./programs.ts";
import {
  type Addresses,
  credsPath,
  type MysqlAddress,
  type Reply,
  type Request,
  readLines,
  readState,
  type ServiceName,
  type State,
  writePrivate,
} from "./state.ts";

/** How long a client may take to ask for something, ms: nobody holds a connection without the token. */
const requestDeadline = 3_000;

async function supervise(folder: string) {
  const lock = await takeFolder(folder);
  const dropCreds = () => rmSync(credsPath(folder), { force: true });
  dropCreds(); // that of a supervisor that was killed
  const former = readState(folder);
  await Promise.all((former?.children ?? []).map((child) => endOrphan(child, former?.folder ?? folder)));

  const control = { port: await freePort(), token: randomBytes(16).toString("hex") };
  // A request has its token first, so that strangers are known before their line ends.
  const opening = Buffer.from(JSON.stringify({ token: control.token }).slice(0, -1));
  const state: State = {
    folder,
    password: former?.password ?? randomBytes(18).toString("base64url"),
    ports: former?.ports ?? {},
    supervisor: identifySelf(),
    control,
    children: [],
    ready: {},
  };
  const clients = new Set<Socket>();
  const running = new Set<Guarded>();
  const services = new Map<ServiceName, Promise<void>>();
  const stopping = new AbortController();
  let keeper: Guarded | undefined;

  const server = createServer({ allowHalfOpen: true }, talkTo);
  server.listen(control.port, "127.0.0.1", () => write(state));
  for (const signal of ["SIGTERM", "SIGINT", "SIGHUP"] as const) process.on(signal, end);
  process.on("exit", () => isOurs() && dropCreds()); // also when an error ends it
  // Whoever deletes the folder of running services wants them no more, and nobody could find them any more.
  setTimeout(() => setInterval(() => isOurs() || end(), 2_000), 5_000);
  setTimeout(endIfUnused, 5_000); // the program that wanted us may have died before it came

  const tools: Tools = {
    signal: stopping.signal,
    say: (line) => {
      console.error(`${new Date().toISOString()} ${line}`); // to supervisor.log
      for (const client of clients) send(client, { say: line });
    },
    spawn: (...args) => {
      stopping.signal.throwIfAborted();
      const child = spawnGuarded(...args);
      const note = () => {
        state.children = [...running].map(({ id }) => id);
        save();
      };
      running.add(child);
      note();
      void child.ended.then(() => {
        running.delete(child);
        note();
      });
      return child;
    },
  };

  const start = {
    async mysql({ mysql: program }: Programs) {
      if (!program) return;
      const at = await port("mysql");
      const address: MysqlAddress = {
        host: "127.0.0.1",
        port: at,
        user: "pipeline",
        password: state.password,
        database: "pinterest_data",
      };
      await follow("mysql", program.name, at, startMysql(program, { folder, address }, tools));
      publish({ mysql: address });
    },
    async zookeeper({ kafka: program }: Programs) {
      if (!program) return;
      const at = await port("zookeeper");
      keeper = await follow("zookeeper", "ZooKeeper", at, startZookeeper(program, { folder, port: at }, tools));
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
      await follow("kafka", program.name, ports.broker, startKafka(program, place, tools));
      publish({ kafka: { brokers: [`127.0.0.1:${ports.broker}`] } });
    },
  } satisfies Record<ServiceName, unknown>;

  /** Waits until a service is ready, and notices when it ends. */
  async function follow(service: ServiceName, name: string, at: number, starting: Promise<Guarded>) {
    const began = Date.now();
    const guarded = await starting;
    tools.say(`${name} is ready on 127.0.0.1:${at} (${((Date.now() - began) / 1_000).toFixed(1)} s)`);
    void guarded.ended.then((how) => {
      services.delete(service);
      if (service !== "zookeeper") delete state.ready[service];
      if (stopping.signal.aborted) return;
      if (service === "mysql" && isOurs()) dropCreds();
      save();
      tools.say(`${name} has ended by itself (${how}); its log is in "${folder}". The next command starts it again`);
    });
    return guarded;
  }

  /** A port for a service, that of the last time when it is free. */
  async function port(name: string) {
    const free = await freePort(state.ports[name]);
    state.ports[name] = free;
    return free;
  }

  function publish(ready: Addresses) {
    Object.assign(state.ready, ready);
    save();
    writeCreds(folder, state.ready);
  }

  function write(content: State) {
    writePrivate(join(folder, "state.json"), JSON.stringify(content, null, 2));
  }

  function save() {
    if (isOurs()) write(state);
  }

  function isOurs() {
    return readState(folder)?.supervisor?.pid === process.pid;
  }

  /** One client: it stays connected as long as it uses the services. Its half-closed connection ends when we have. */
  function talkTo(socket: Socket) {
    const leave = () => {
      if (clients.delete(socket)) endIfUnused();
      if (!stopping.signal.aborted) socket.end();
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
        if (request?.token !== control.token || stopping.signal.aborted) socket.destroy();
        else if ("stop" in request) end();
        else void use(socket, request.use, request.keep);
      },
    });
  }

  async function use(socket: Socket, wanted: ServiceName[], keep: boolean) {
    clients.add(socket);
    try {
      const lacking = wanted.filter((service) => !services.has(service));
      if (wanted.includes("kafka")) checkMode(folder, { zookeeper: wanted.includes("zookeeper") });
      // A Kafka that is started again while its ZooKeeper goes on must be one that knows it.
      const programs = findPrograms(lacking.includes("kafka") ? wanted : lacking, tools);
      for (const service of lacking) {
        const started = programs.then((found) => start[service](found, keep));
        services.set(service, started);
        started.catch(() => services.delete(service)); // the next client may have more luck
      }
      await Promise.all(wanted.map((service) => services.get(service)));
      state.keep ||= keep;
      save();
      send(socket, { ready: state.ready, keep: state.keep });
    } catch (error) {
      send(socket, { error: error instanceof Error ? error.message : String(error) });
    }
  }

  /** ZooKeeper last: a Kafka that stops says so to it, and waits for it where it is gone. */
  async function stopAll() {
    await Promise.all([...running].filter((child) => child !== keeper).map((child) => child.stop()));
    await keeper?.stop();
  }

  function endIfUnused() {
    if (clients.size === 0 && !state.keep) end();
  }

  function end() {
    if (stopping.signal.aborted) return;
    stopping.abort(new Error("The services were stopped"));
    server.close();
    void stopAll().then(() => {
      if (isOurs()) {
        dropCreds();
        const { password, ports } = state;
        write({ folder, password, ports, children: [], ready: {} });
      }
      lock.closeSync();
      process.exit(0); // closes the connections, which tells whoever waits
    });
  }
}

const send = (socket: Socket, reply: Reply) => socket.write(`${JSON.stringify(reply)}\n`);

/** A request, or undefined for the talk of strangers. */
function parse(line: string): Request | undefined {
  try {
    return JSON.parse(line) as Request;
  } catch {
    return undefined;
  }
}

/** One supervisor a folder. */
async function takeFolder(folder: string) {
  const deadline = Date.now() + 6_000; // the former supervisor may be ending
  for (;;) {
    try {
      return await takeLock(join(folder, "lock.duckdb"));
    } catch (error) {
      if (!isHeld(error)) throw error;
      if (Date.now() > deadline) process.exit(0); // it stays, and our program has found it
      await sleep(30);
    }
  }
}

/** A db_creds.yaml for any command, and for people. */
function writeCreds(folder: string, { mysql, kafka }: Addresses) {
  if (!mysql) return;
  const { host, port, user, password, database } = mysql;
  const creds = { HOST: host, PORT: port, USER: user, PASSWORD: password, DATABASE: database };
  writePrivate(
    credsPath(folder),
    `# Made by the program; good while its services run.\n${stringify({ ...creds, ...(kafka && { KAFKA: { BROKERS: kafka.brokers } }) })}`,
  );
}

await supervise(process.argv[2] ?? "");
