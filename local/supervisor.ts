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
import { createInterface } from "node:readline";
import { setTimeout as sleep } from "node:timers/promises";
import { DuckDBInstance } from "@duckdb/node-api";
import { stringify } from "yaml";
import { startKafka } from "./broker.ts";
import { startMysql } from "./mariadb.ts";
import { endOrphan, freePort, type Guarded, identifySelf, spawnGuarded } from "./processes.ts";
import { findPrograms, type Programs, type Tools } from "./programs.ts";
import {
  type Addresses,
  credsPath,
  type Reply,
  type Request,
  readState,
  type ServiceName,
  type State,
  writePrivate,
} from "./state.ts";

async function supervise(folder: string) {
  const lock = await takeLock(join(folder, "lock.duckdb"));
  const former = readState(folder);
  await Promise.all((former?.children ?? []).map((child) => endOrphan(child, former?.folder ?? folder)));

  const token = randomBytes(16).toString("hex");
  const server = createServer({ allowHalfOpen: true }, talkTo);
  const state: State = {
    folder,
    password: former?.password ?? randomBytes(18).toString("base64url"),
    ports: former?.ports ?? {},
    supervisor: identifySelf(),
    control: { port: await freePort(), token },
    children: [],
    ready: {},
  };
  const save = () => writePrivate(join(folder, "state.json"), JSON.stringify(state, null, 2));

  const clients = new Set<Socket>();
  const running = new Set<Guarded>();
  const services = new Map<ServiceName, Promise<void>>();
  const stopping = new AbortController();
  const send = (socket: Socket, reply: Reply) => socket.write(`${JSON.stringify(reply)}\n`);
  const tools: Tools = {
    signal: stopping.signal,
    say: (line) => {
      for (const client of clients) send(client, { say: line });
    },
    spawn: (...args) => {
      stopping.signal.throwIfAborted();
      const process = spawnGuarded(...args);
      running.add(process);
      noteChildren();
      void process.ended.then(() => {
        running.delete(process);
        noteChildren();
      });
      return process;
    },
  };

  server.listen(state.control?.port, "127.0.0.1", save);
  for (const signal of ["SIGTERM", "SIGINT", "SIGHUP"] as const) process.on(signal, end);
  setTimeout(endIfUnused, 10_000); // the program that wanted us may have died before it came

  function noteChildren() {
    state.children = [...running].map(({ id }) => id);
    save();
  }

  /** One client: it stays connected as long as it uses the services. Its half-closed connection ends when we have. */
  function talkTo(socket: Socket) {
    const leave = () => {
      clients.delete(socket);
      endIfUnused();
      if (!stopping.signal.aborted) socket.end();
    };
    socket
      .on("error", () => {})
      .on("end", leave)
      .on("close", leave);
    createInterface({ input: socket }).on("line", (line) => {
      const request = JSON.parse(line) as Request;
      if (request.token !== token) socket.destroy();
      else if ("stop" in request) end();
      else void use(socket, request.use, request.keep);
    });
  }

  async function use(socket: Socket, wanted: ServiceName[], keep: boolean) {
    clients.add(socket);
    try {
      const lacking = wanted.filter((service) => !services.has(service));
      const programs = findPrograms(lacking, tools);
      for (const service of lacking)
        services.set(
          service,
          programs.then((found) => start(service, found)),
        );
      await Promise.all(wanted.map((service) => services.get(service)));
      state.keep ||= keep;
      save();
      send(socket, { ready: state.ready, keep: state.keep });
    } catch (error) {
      for (const service of wanted) if (!state.ready[service]) services.delete(service);
      send(socket, { error: error instanceof Error ? error.message : String(error) });
    }
  }

  async function start(service: ServiceName, programs: Programs) {
    const began = Date.now();
    const port = async (name: string) => {
      state.ports[name] = await freePort(state.ports[name]);
      return state.ports[name];
    };
    let process: Guarded;
    let name: string;
    let at: number;
    if (service === "mysql") {
      if (!programs.mysql) return;
      at = await port("mysql");
      const address = {
        host: "127.0.0.1",
        port: at,
        user: "pipeline",
        password: state.password ?? "",
        database: "pinterest_data",
      };
      name = programs.mysql.name;
      process = await startMysql(programs.mysql, { folder, address, tools });
      state.ready.mysql = address;
    } else {
      if (!programs.kafka) return;
      at = await port("kafka");
      name = programs.kafka.name;
      process = await startKafka(programs.kafka, {
        folder,
        ports: { broker: at, controller: await port("controller") },
        tools,
      });
      state.ready.kafka = { brokers: [`127.0.0.1:${at}`] };
    }
    save();
    writeCreds(folder, state.ready);
    tools.say(`${name} is ready on 127.0.0.1:${at} (${((Date.now() - began) / 1_000).toFixed(1)} s)`);
    void process.ended.then((how) => {
      services.delete(service);
      delete state.ready[service];
      if (stopping.signal.aborted) return;
      save();
      tools.say(`${name} has ended by itself (${how}); its log is in "${folder}". The next command starts it again`);
    });
  }

  function endIfUnused() {
    if (clients.size === 0 && !state.keep) end();
  }

  function end() {
    if (stopping.signal.aborted) return;
    stopping.abort(new Error("The services were stopped"));
    server.close();
    void Promise.all([...running].map((process) => process.stop())).then(() => {
      rmSync(credsPath(folder), { force: true });
      const { password = "", ports } = state;
      writePrivate(
        join(folder, "state.json"),
        JSON.stringify({ folder, password, ports, children: [], ready: {} } satisfies State),
      );
      lock.closeSync();
      process.exit(0); // closes the connections, which tells whoever waits
    });
  }
}

/** One supervisor a folder: a DuckDB file that is open for writing is a lock that ends with its process. */
async function takeLock(path: string) {
  const deadline = Date.now() + 6_000; // the former supervisor may be ending
  for (;;) {
    try {
      return await DuckDBInstance.create(path, { threads: "1" });
    } catch (error) {
      if (!/lock/i.test(String(error))) throw error;
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
