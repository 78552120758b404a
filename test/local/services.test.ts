/** The private services: shared, and stopped with their last user, whichever process is killed. */
import assert from "node:assert/strict";
import { once } from "node:events";
import { existsSync } from "node:fs";
import { cp, mkdir, readFile, rename, rmdir, symlink, utimes, writeFile } from "node:fs/promises";
import { type AddressInfo, connect, createServer } from "node:net";
import { join } from "node:path";
import { after, before, test } from "node:test";
import { setTimeout as sleep } from "node:timers/promises";
import { keepClasses } from "../../local/broker.ts";
import { ask, spawnGuarded, untilReady, within } from "../../local/processes.ts";
import { loadSample } from "../../local/sample/load.ts";
import { findServices, useServices } from "../../local/services.ts";
import { type MysqlAddress, readState } from "../../local/state.ts";
import { copyFormatted, keepFormatted } from "../../local/warm_start.ts";
import { run, runs, start, temporaryFolder, untilGone } from "../support/support.ts";

let folder: Awaited<ReturnType<typeof temporaryFolder>>;
let data: string;
before(async () => {
  folder = await temporaryFolder();
  data = join(folder.path, "data");
});
after(async () => {
  await run(["down", "--data", data]);
  await folder.remove();
});

interface State {
  supervisor?: { pid: number };
  children: { name: string; pid: number }[];
}

const state = async (): Promise<State> =>
  JSON.parse(await readFile(join(data, "services/state.json"), "utf8")) as State;

const pidsOf = ({ supervisor, children }: State) => [
  ...(supervisor ? [supervisor.pid] : []),
  ...children.map((c) => c.pid),
];

const follow = async () => {
  const following = start(["clean", "--follow", "--data", data]);
  await following.said(/Using Kafka/);
  return following;
};

test("a program that is killed leaves no service behind", async () => {
  const following = await follow();
  const pids = pidsOf(await state());
  assert.ok(pids.length >= 2);
  following.kill("SIGKILL");
  await following.done;
  await untilGone(pids);
});

test("a database killed during the start or the sample load gives an error that says what to do", async () => {
  const killDatabase = async () => {
    const database = (await state()).children.find(({ name }) => name === "mariadbd");
    process.kill(-(database as { pid: number }).pid, "SIGKILL");
  };
  const early = start(["post", "--data", data]);
  await early.said(/MariaDB is ready/);
  await killDatabase();
  const { code, stderr } = await early.done;
  assert.equal(code, 1, stderr);
  // Depends on whether Kafka was ready first.
  assert.match(
    stderr,
    /^Error: (Cannot use the local services: mysql ended before .*same command starts it again|Cannot reach MySQL at .*)\n$/m,
  );

  const loading = start(["--rows", "60000", "--data", data, "--wait", "1"]);
  await loading.said(/Using MySQL/);
  await killDatabase();
  const late = await loading.done;
  assert.equal(late.code, 1, late.stderr);
  assert.match(late.stderr, /^Error: Cannot reach MySQL at 127\.0\.0\.1:\d+: /m);
});

test("a supervisor that is killed takes its services with it, and the next command starts them again", async () => {
  const following = await follow();
  const before = await state();
  process.kill((before.supervisor as { pid: number }).pid, "SIGKILL");
  await untilGone(pidsOf(before));
  const { code, stderr } = await following.done;
  assert.equal(code, 1);
  assert.match(stderr, /^Error: The local services were stopped or killed; run the same command again, which starts/m);
  const explored = await run(["explore", "--data", data]);
  assert.equal(explored.code, 0, explored.stderr);
});

const javaOf = async () => (await state()).children.findLast(({ name }) => name === "java")?.pid as number;
const isBrief = async (pid: number) =>
  (await readFile(`/proc/${pid}/cmdline`, "utf8")).includes("-XX:TieredStopAtLevel=1");

test("for one command Kafka starts fast and prepares its first transaction; a second command shares it, and the last one stops it", async () => {
  const first = await follow();
  assert.equal(await isBrief(await javaOf()), true);
  // Nothing was posted yet.
  const ofTransactions = join(data, "services/kafka/__transaction_state-0");
  for (let tries = 0; tries < 100 && !existsSync(ofTransactions); tries++) await sleep(50);
  assert.ok(existsSync(ofTransactions));
  const pids = pidsOf(await state());
  const second = await run(["post", "--data", data]);
  assert.equal(second.code, 0, second.stderr);
  assert.ok(await runs(pids[0] as number));
  const all = [...new Set([...pids, ...pidsOf(await state())])];
  first.kill("SIGINT");
  assert.equal((await first.done).code, 130);
  await untilGone(all);
});

test("a copy of a folder in use has separate services, and does not touch those of the original", async () => {
  const [original, copy] = ["original", "copy"].map((name) => join(folder.path, name)) as [string, string];
  const use = (dataDir: string) => useServices({ dataDir, mysql: true, kafka: false, say: () => {} });
  await using services = await use(original);
  await cp(original, copy, { recursive: true, filter: (path) => !path.endsWith(".sock") });
  assert.equal(findServices({ dataDir: copy }), undefined);
  assert.match((await run(["down", "--data", copy])).stderr, /Nothing was running/);
  {
    await using others = await use(copy);
    assert.notEqual(others.mysql?.port, services.mysql?.port);
  }
  const reset = await run(["reset", "--yes", "--data", copy]);
  assert.equal(reset.code, 0, reset.stderr);
  assert.equal(services.lost.aborted, false);
  const renamed = join(folder.path, "renamed");
  await rename(original, renamed);
  assert.equal(findServices({ dataDir: renamed })?.mysql?.port, services.mysql?.port);
});

test("reset beside a starting command deletes all, and the command ends with an error that says what to do", async () => {
  const dataDir = join(folder.path, "deleted");
  for (let i = 0; i < 8; i++) {
    const exploring = start(["explore", "--data", dataDir]);
    await sleep(100 * i);
    const reset = await run(["reset", "--yes", "--data", dataDir]);
    assert.equal(reset.code, 0, reset.stderr);
    const { code, stderr } = await exploring.done;
    if (code !== 0)
      assert.match(stderr, /^Error: The local services were stopped or killed; run the same command again/m);
  }
});

test("down ends the commands that use the services, and they say why", async () => {
  for (const args of [["emulate"], ["serve", "--port", "0"], ["post", "--follow"]]) {
    const using = start([...args, "--data", data]);
    await using.said(args[0] === "serve" ? /http:/ : /Using Kafka/);
    const began = Date.now();
    const down = await run(["down", "--data", data]);
    assert.equal(down.code, 0, down.stderr);
    const { code, stderr } = await using.done;
    assert.equal(code, 1, stderr);
    assert.match(stderr, /^Error: The local services were stopped or killed; run the same command again/m, args[0]);
    assert.ok(Date.now() - began < 30_000, "waits for services that nobody starts");
  }
});

test("a frozen supervisor is named, and down ends it", async () => {
  const following = await follow();
  const pids = pidsOf(await state());
  process.kill(pids[0] as number, "SIGSTOP");
  const posted = await run(["post", "--data", data]);
  assert.equal(posted.code, 1);
  const text = `^Error: Cannot use the local services: process ${pids[0]}, the supervisor, does not answer; run down`;
  assert.match(posted.stderr, new RegExp(text, "m"));
  const down = await run(["down", "--data", data]);
  assert.equal(down.code, 0, down.stderr);
  await untilGone(pids);
  assert.equal((await following.done).code, 1);
});

test("a stopped command ends within 3 s, even if its services do not", async () => {
  const took: number[] = [];
  // Repeated, because other tests may have used the cores; a program that is too slow fails each time.
  for (let tries = 0; tries < 3 && !took.some((ms) => ms < 3_000); tries++) {
    const following = await follow();
    const pids = pidsOf(await state());
    process.kill(pids[0] as number, "SIGSTOP");
    const stopped = Date.now();
    following.kill("SIGINT");
    assert.equal((await following.done).code, 130);
    took.push(Date.now() - stopped);
    process.kill(pids[0] as number, "SIGCONT");
    await untilGone(pids);
  }
  assert.ok((took.at(-1) as number) < 3_000, `${took} ms`);
});

test("a kept Kafka uses the optimizing compiler, also after a restart", async () => {
  const up = await run(["up", "--data", data, "--rows", "10"]);
  assert.equal(up.code, 0, up.stderr);
  const stays = await javaOf();
  assert.equal(await isBrief(stays), false);
  process.kill(stays, "SIGKILL");
  await untilGone([stays]);
  const again = await run(["post", "--data", data]);
  assert.equal(again.code, 0, again.stderr);
  assert.equal(await isBrief(await javaOf()), false);
});

test("no argument list, log or file that others can read contains the password", async () => {
  const up = await run(["up", "--data", data]);
  assert.equal(up.code, 0, up.stderr);
  const { password, children } = (await state()) as State & { password: string };
  assert.ok(password.length >= 16);
  assert.deepEqual(children.map(({ name }) => name).sort(), ["java", "mariadbd"]);
  for (const { pid } of children) {
    assert.ok(!(await readFile(`/proc/${pid}/cmdline`, "utf8")).includes(password));
  }
  for (const log of ["supervisor.log", "mariadb.log", "kafka.log"]) {
    assert.ok(!(await readFile(join(data, "services", log), "utf8").catch(() => "")).includes(password));
  }
  assert.ok(!(up.stdout + up.stderr).includes(password));
  const down = await run(["down", "--data", data]);
  assert.equal(down.code, 0, down.stderr);
});

test("a state file with the pid of an unrelated process does no harm", async () => {
  const path = join(data, "services/state.json");
  const kept = await state();
  const stale = { ...kept, supervisor: { pid: process.pid, start: "1" }, children: [{ pid: process.pid, start: "1" }] };
  await writeFile(path, JSON.stringify(stale));
  const explored = await run(["explore", "--data", data]);
  assert.equal(explored.code, 0, explored.stderr);
});

test("a state file with other content is none", async () => {
  const path = join(data, "services/state.json");
  const kept = await state();
  const others = [
    { children: null },
    { children: [null] },
    { ports: { kafka: 70_000 } },
    { ports: 1 },
    { ready: null },
  ];
  for (const content of [{}, [], 42, "x", null, ...others.map((other) => ({ ...kept, ...other }))]) {
    await writeFile(path, JSON.stringify(content));
    const down = await run(["down", "--data", data]);
    assert.equal(down.code, 0, down.stderr);
    assert.match(down.stderr, /Nothing was running/);
  }
  const explored = await run(["explore", "--data", data]);
  assert.equal(explored.code, 0, explored.stderr);
});

test("a start and a resumed load show their progress", async () => {
  const dataDir = join(folder.path, "shown");
  const shown: string[] = [];
  const onProgress = (subject: string, text?: string) => shown.push(text ?? `${subject} is over`);
  await using services = await useServices({ dataDir, mysql: true, kafka: false, say: () => {}, onProgress });
  assert.match(shown[0] ?? "", /^Starting MariaDB: \d[.]\d s$/);
  assert.equal(shown.at(-1), "Starting MariaDB is over");
  assert.ok(services.mysql);
  const load = async (rows: number) => {
    const first = new Map<string, number>();
    const onProgress = (table: string, done: number) => void (first.has(table) || first.set(table, done));
    await loadSample(services.mysql as MysqlAddress, { rows, onProgress });
    return [...new Set(first.values())];
  };
  assert.deepEqual([await load(10), await load(25)], [[0], [10]]);
});

test("strangers at the control port are disconnected, and the services keep running", async () => {
  const dataDir = join(folder.path, "strangers");
  await using services = await useServices({ dataDir, mysql: true, kafka: false, say: () => {} });
  assert.ok(services.mysql);
  const { control, supervisor, children } = readState(join(dataDir, "services")) ?? {};
  assert.ok(control && supervisor && children);
  const opening = JSON.stringify({ token: control.token }).slice(0, -1);
  const isCut = (words: string) => {
    const socket = connect(control.port, "127.0.0.1", () => socket.write(words)).on("error", () => {});
    const closed = new Promise((resolve) => socket.once("close", resolve));
    return within(8_000, closed).finally(() => socket.destroy());
  };
  const strangers = {
    silent: "",
    "a line without an end": "x".repeat(100_000),
    "a wrong token": `{"token":"${"0".repeat(control.token.length)}","stop":true}\n`,
    "the right token and no end of a line": opening,
    "the right token and a line without an end": `${opening},"use":["${"x".repeat(100_000)}`,
    "the right token and no JSON": `${opening}\n`,
  };
  const cut = await Promise.all(Object.values(strangers).map(isCut));
  assert.deepEqual(
    cut,
    Object.values(strangers).map(() => true),
  );
  assert.equal(findServices({ dataDir })?.mysql?.port, services.mysql.port);
  assert.deepEqual(await Promise.all([supervisor, ...children].map(({ pid }) => runs(pid))), [true, true]);
});

test("a supervisor that sends an endless line, or no JSON, gives an error", async () => {
  const dataDir = join(folder.path, "babbler");
  const services = join(dataDir, "services");
  await mkdir(services, { recursive: true });
  for (const babble of ["x".repeat(100_000), "What?\\n"]) {
    const code = `require("net").createServer((s) => s.on("error", () => {}).write("${babble}")).listen(0, "127.0.0.1",
      function () { console.log(this.address().port); })`;
    const { id: supervisor, child, stop } = spawnGuarded(process.execPath, ["-e", code, services], { output: "pipe" });
    try {
      const port = await new Promise<number>((resolve) => child.stdout?.once("data", (text) => resolve(Number(text))));
      const control = { port, token: "t" };
      await writeFile(
        join(services, "state.json"),
        JSON.stringify({ folder: services, ports: {}, ready: {}, children: [], supervisor, control }),
      );
      const options = { dataDir, mysql: true, kafka: false, say: () => {}, signal: AbortSignal.timeout(5_000) };
      await assert.rejects(
        useServices(options),
        /^Error: Cannot understand process \d+, the supervisor of the local services: it sent (a line over 64 kB|no JSON); run down/,
      );
    } finally {
      await stop();
    }
  }
});

test("at most 4 MB of an endless answer are read", async () => {
  const server = createServer((socket) => socket.on("error", () => {}).end("x".repeat(20_000_000)));
  server.listen(0, "127.0.0.1");
  try {
    await once(server, "listening");
    const said = await ask((server.address() as AddressInfo).port, "dump");
    assert.ok(said.length < 5_000_000, `${said.length} bytes`);
  } finally {
    server.close();
  }
});

test("the credentials file is deleted with the database, however the services end", async () => {
  const dataDir = join(folder.path, "creds");
  const services = join(dataDir, "services");
  const use = () => useServices({ dataDir, mysql: true, kafka: false, say: () => {} });
  const unused = async () => {
    for (let tries = 0; tries < 200 && existsSync(join(services, "db_creds.yaml")); tries++) await sleep(50);
    return !existsSync(join(services, "db_creds.yaml"));
  };
  const pids = () => {
    const { supervisor, children } = readState(services) as State & { supervisor: { pid: number } };
    return { supervisor: supervisor.pid, database: children.find(({ name }) => name === "mariadbd")?.pid as number };
  };

  let used = await use();
  assert.ok(existsSync(used.credsFile));
  process.kill(pids().database, "SIGKILL");
  assert.ok(await unused(), "the database ended by itself");

  // The supervisor fails if it cannot write its state.
  await use();
  const failed = pids();
  await mkdir(join(services, "state.json.unfinished"));
  process.kill(failed.database, "SIGKILL");
  await untilGone([failed.supervisor]);
  await rmdir(join(services, "state.json.unfinished"));
  assert.ok(!existsSync(used.credsFile), "the supervisor died of an error");

  used = await use();
  const killed = pids();
  process.kill(killed.supervisor, "SIGKILL");
  await untilGone([killed.supervisor, killed.database]);
  assert.ok(existsSync(used.credsFile));
  assert.equal(findServices({ dataDir }), undefined);
  assert.ok(!existsSync(used.credsFile), "the supervisor was killed");
});

test("without Java and Maven, one error lists the remedies", async () => {
  const bin = join(folder.path, "bin");
  await mkdir(bin);
  await symlink("/bin/sh", join(bin, "sh"));
  const env = {
    PATH: bin,
    JAVA_HOME: "",
    XDG_CACHE_HOME: join(folder.path, "empty"),
    KAFKA_HOME: "",
    MARIADB_HOME: "",
  };
  const { code, stderr } = await run(["explore", "--data", join(folder.path, "bare")], { env });
  assert.equal(code, 1);
  for (const word of ["MARIADB_HOME", "KAFKA_HOME", "db_creds.yaml", "npm run binary -- --services"])
    assert.ok(stderr.includes(word), stderr);
});

test("a download with a wrong checksum is refused", async () => {
  const repository = join(folder.path, "repository");
  const plugin = "org/apache/maven/plugins/maven-dependency-plugin/3.8.1";
  const pom = join(repository, plugin, "maven-dependency-plugin-3.8.1.pom");
  await mkdir(join(repository, plugin), { recursive: true });
  const name = `<groupId>org.apache.maven.plugins</groupId><artifactId>maven-dependency-plugin</artifactId>`;
  await writeFile(
    pom,
    `<project><modelVersion>4.0.0</modelVersion>${name}<version>3.8.1</version><packaging>maven-plugin</packaging></project>`,
  );
  await writeFile(`${pom}.sha1`, "0".repeat(40));
  const home = join(folder.path, "home");
  await mkdir(join(home, ".m2"), { recursive: true });
  const mirror = `<id>here</id><mirrorOf>*</mirrorOf><url>file://${repository}</url>`;
  await writeFile(join(home, ".m2/settings.xml"), `<settings><mirrors><mirror>${mirror}</mirror></mirrors></settings>`);
  const env = { MAVEN_OPTS: `-Duser.home=${home}`, XDG_CACHE_HOME: join(folder.path, "cache"), MARIADB_HOME: "" };
  const { code, stderr } = await run(["explore", "--data", join(folder.path, "checked")], { env });
  assert.equal(code, 1);
  assert.match(stderr, /Error: Cannot download MariaDB with Maven: .*Checksum validation failed/);
});

test("a failed class archive is retried after a day or with another version, and leaves no empty file", async () => {
  const services = join(folder.path, "classes");
  await mkdir(services);
  const said: string[] = [];
  const tools = { spawn: spawnGuarded, say: (line: string) => said.push(line), signal: new AbortController().signal };
  const tries = async (version: string) => {
    const before = said.length;
    const archive = join(services, `java-${version}.jsa`);
    await keepClasses({ java: "false", classpath: "none", name: "Kafka", archive }, services, tools);
    assert.ok(!existsSync(archive));
    return said.length > before;
  };
  await writeFile(join(services, "java-17.jsa"), ""); // earlier versions left empty ones
  assert.equal(await tries("17"), true);
  assert.match(said.join("\n"), /Cannot prepare Kafka for quick starts: .* exit code 1.*; it starts more slowly/);
  assert.equal(await tries("17"), false);
  assert.equal(await tries("21"), true);
  assert.equal(await tries("21"), false);
  const aDayAgo = new Date(Date.now() - 25 * 3_600_000);
  await utimes(join(services, "kafka-classes.failed"), aDayAgo, aDayAgo);
  assert.equal(await tries("21"), true);
});

test("a formatted folder of Kafka is copied with other ids, and not from a damaged copy", async () => {
  const cache = join(folder.path, "formatted cache");
  const made = join(folder.path, "made");
  await mkdir(cache);
  await mkdir(made);
  const meta = "#\nnode.id=1\ndirectory.id=AAAA\nversion=1\ncluster.id=BBBB\n";
  await writeFile(join(made, "meta.properties"), meta);
  await writeFile(join(made, "bootstrap.checkpoint"), "records");
  const kafka = { java: "java", classpath: "none", name: "Kafka", archive: join(cache, "java-17.jsa") };
  const copy = (name: string) => copyFormatted(kafka, join(folder.path, name), { cluster: "CCCC", directory: "DDDD" });
  assert.equal(copy("before"), false);
  keepFormatted(kafka, made);
  assert.equal(copy("copied"), true);
  const copied = await readFile(join(folder.path, "copied/meta.properties"), "utf8");
  assert.equal(copied, meta.replace("AAAA", "DDDD").replace("BBBB", "CCCC"));
  assert.equal(await readFile(join(folder.path, "copied/bootstrap.checkpoint"), "utf8"), "records");
  await writeFile(join(cache, "formatted/bootstrap.checkpoint"), "");
  assert.equal(copy("damaged"), false);
  keepFormatted(kafka, made);
  assert.equal(copy("again"), true);
  keepFormatted({ ...kafka, archive: "/proc/nowhere/java-17.jsa" }, made); // a cache that cannot be written
});

test("a service that cannot start on a full disk says so before the end of its log", async () => {
  const log = join(folder.path, "full.log");
  await writeFile(log, "[ERROR] InnoDB: preallocating 134217728 bytes for file ./ib_logfile101 failed with error 28\n");
  const program = spawnGuarded("false", [], { output: "pipe" });
  const starting = untilReady(program, { name: "MariaDB", log, signal: new AbortController().signal });
  await assert.rejects(
    starting,
    /^Error: Cannot start MariaDB: it ended with exit code 1[.] Its disk is full: make room/,
  );
});

test("a folder or a cache that cannot be written is named with the way out", async () => {
  const file = join(folder.path, "file");
  await writeFile(file, "");
  const inFile = await run(["explore", "--data", join(file, "data")]);
  assert.match(inFile.stderr, /^Error: Cannot use --data ".*data": it is not a folder$/m);
  const taken = join(folder.path, "taken");
  await mkdir(taken);
  await writeFile(join(taken, "services"), "");
  const inTaken = await run(["explore", "--data", taken]);
  assert.match(inTaken.stderr, /^Error: Cannot write to ".*services": .*; choose another folder with --data$/m);
  const env = { XDG_CACHE_HOME: join(file, "cache"), MARIADB_HOME: "" };
  const cached = await run(["explore", "--data", join(folder.path, "uncached")], { env });
  assert.match(
    cached.stderr,
    /^Error: Cannot write to the cache ".*": .*; choose another folder with XDG_CACHE_HOME$/m,
  );
});
