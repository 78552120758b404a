/** `--zookeeper`: the whole job on Kafka 3.9 with a ZooKeeper, its services, and a short fault run. */
import assert from "node:assert/strict";
import { once } from "node:events";
import { existsSync } from "node:fs";
import { readdir, readFile, readlink } from "node:fs/promises";
import { createServer } from "node:net";
import { dirname, join } from "node:path";
import { after, before, test } from "node:test";
import { setTimeout as sleep } from "node:timers/promises";
import { fileURLToPath } from "node:url";
import { tableNames } from "../../io.ts";
import { ask } from "../../local/processes.ts";
import { readState, type State } from "../../local/state.ts";
import { compareLake, compareTopics, readMessages } from "../faults/compare.ts";
import { findPython } from "../support/python.ts";
import { openServices, type Services } from "../support/services.ts";
import { run, start, untilGone } from "../support/support.ts";

let services: Services;
let here: string[];
before(async () => {
  services = await openServices({ rows: 3_000, flags: ["--zookeeper"] });
  here = ["--data", services.data, "--zookeeper"];
});
after(async () => {
  await services?.close();
});

const state = () => readState(dirname(services.creds)) as State;
const pidsOf = ({ supervisor, children }: State) => [supervisor, ...children].map((process) => process?.pid as number);
const javas = () => state().children.filter(({ name }) => name === "java");

/** Runs the whole job and compares the database with the topics, and the topics with the lake. */
async function wholeJob(prefix: string): Promise<void> {
  const whole = await run([...here, "--prefix", prefix, "--json"]);
  assert.equal(whole.code, 0, whole.stderr);
  const lake = join(services.data, "zookeeper", "lake");
  const compared = { db: services.mysql, prefix, lake, copies: 1, isForeign: () => false };
  const messages = await readMessages(services.kafka.brokers, compared, await findPython());
  for (const table of tableNames) assert.equal(messages[table].length, 3_000);
  const nothing = { lost: 0, doubled: 0, wrong: [] };
  assert.deepEqual(await compareTopics(compared, messages), nothing);
  assert.deepEqual(await compareLake(compared, messages), nothing);
}

test("the whole job: every row is in its topic once and in order, and silver is the topics, cleaned", async () => {
  await wholeJob("pinterest");
  const said = await run(["status", ...here]);
  assert.match(said.stderr, /Kafka 127[.]0[.]0[.]1:\d+ [(]embedded, with ZooKeeper[)]/);
  const emulated = await run(["emulate", "--limit", "5", "--rate", "100/s", "--json", ...here]);
  assert.equal((JSON.parse(emulated.stdout) as { posts: number }).posts, 5, emulated.stderr);
  const cleaned = await run(["clean", "--json", ...here]);
  assert.equal((JSON.parse(cleaned.stdout) as { messages: number }).messages, 15);
});

test("Kafka is version 3.9 and uses the ZooKeeper, with separate data", async () => {
  const folder = dirname(services.creds);
  const commands = await Promise.all(javas().map(({ pid }) => readFile(`/proc/${pid}/cmdline`, "utf8")));
  assert.match(commands[0] as string, /QuorumPeerMain/);
  assert.match(commands[1] as string, /kafka[.]Kafka/);
  assert.ok(folder.endsWith(join("zookeeper", "services")), folder);
  assert.ok(!existsSync(join(services.data, "services")));
  assert.match(await askZookeeper("dump"), /\/brokers\/ids\/1/);
});

/** ZooKeeper's answer to a four letter command. */
const askZookeeper = async (word: string) => String(await ask(state().ports.zookeeper as number, word));

/** The addresses and ports on which a process listens, in hexadecimal digits. */
async function listensAt(pid: number): Promise<string[]> {
  const folder = `/proc/${pid}/fd`;
  const links = await Promise.all((await readdir(folder)).map((fd) => readlink(join(folder, fd)).catch(() => "")));
  const sockets = new Set(links.map((link) => /^socket:\[(\d+)\]$/.exec(link)?.[1]));
  const tables = await Promise.all(["tcp", "tcp6"].map((name) => readFile(`/proc/${pid}/net/${name}`, "utf8")));
  const rows = tables.flatMap((text) => text.trim().split("\n").slice(1));
  return rows
    .map((row) => row.trim().split(/\s+/))
    .filter((row) => row[3] === "0A" && sockets.has(row[9]))
    .map((row) => row[1] as string);
}

test("ZooKeeper and Kafka listen on 127.0.0.1 alone, without an admin server, and log little", async () => {
  const found = await Promise.all(javas().map(({ pid }) => listensAt(pid)));
  for (const addresses of found) {
    assert.equal(addresses.length, 1, addresses.join());
    assert.match(addresses[0] as string, /^(0000000000000000FFFF0000)?0100007F:/);
  }
  for (const word of ["ruok", "envi", "conf", "stat", "cons", "mntr"])
    assert.match(await askZookeeper(word), /not in the whitelist/);
});

test("the next command restarts a killed broker, although ZooKeeper still has its session", async () => {
  services.killKafka();
  const again = await run(["clean", ...here]);
  assert.equal(again.code, 0, again.stderr);
  assert.match(again.stderr, /Kafka 3[.]9[.]\d+ is ready/);
  assert.equal(javas().length, 2);
});

test("the next command restarts a killed ZooKeeper, and its Kafka continues with it", async () => {
  const [keeper, kafka] = javas();
  process.kill(keeper?.pid as number, "SIGKILL");
  await untilGone([keeper?.pid as number]);
  const posted = await run(["post", "--prefix", "after", ...here]); // creates topics, which needs ZooKeeper
  assert.equal(posted.code, 0, posted.stderr);
  assert.match(posted.stderr, /ZooKeeper is ready/);
  assert.ok(javas().some(({ pid }) => pid === kafka?.pid));
});

test("the next command restarts a Kafka and a ZooKeeper that were killed together", async () => {
  for (let i = 0; i < 2; i++) {
    // A ZooKeeper that has just started still has the session of the killed broker.
    const killed = javas().map(({ pid }) => pid);
    for (const pid of killed) process.kill(pid, "SIGKILL");
    await untilGone(killed);
    const again = await run(["clean", ...here]);
    assert.equal(again.code, 0, again.stderr);
    assert.match(again.stderr, /ZooKeeper is ready[\s\S]*Kafka 3[.]9[.]\d+ is ready/);
  }
});

test("if the port of a killed ZooKeeper is taken, Kafka starts again too, with the new port", async () => {
  const port = state().ports.zookeeper as number;
  const keeper = javas()[0]?.pid as number;
  process.kill(keeper, "SIGKILL");
  await untilGone([keeper]);
  const stranger = createServer().listen(port, "127.0.0.1");
  try {
    await once(stranger, "listening");
    const posted = await run(["post", "--prefix", "moved", ...here]); // creates topics, which needs ZooKeeper
    assert.equal(posted.code, 0, posted.stderr);
    assert.match(posted.stderr, new RegExp(`Port ${port} of ZooKeeper is taken`));
    assert.doesNotMatch(posted.stderr, /unexpectedly/);
  } finally {
    stranger.close();
  }
});

test("a ZooKeeper that ends while Kafka starts ends the command, and the next one starts both", async () => {
  const down = await run(["down", ...here]);
  assert.equal(down.code, 0, down.stderr);
  const starting = start(["up", ...here]);
  await starting.said(/ZooKeeper is ready/);
  while (javas().length < 2) await sleep(20);
  process.kill(javas()[0]?.pid as number, "SIGKILL");
  const { code, stderr } = await starting.done;
  assert.equal(code, 1);
  assert.match(stderr, /^Error: Cannot use the local services: zookeeper ended before the others were ready/m);
  const up = await run(["up", ...here]);
  assert.equal(up.code, 0, up.stderr);
});

test("services without ZooKeeper run beside, and commands say that the others run too", async () => {
  const beside = await run(["clean", "--data", services.data]);
  assert.equal(beside.code, 0, beside.stderr);
  assert.match(beside.stderr, /Note: services with ZooKeeper are also running, .* add --zookeeper/);
  assert.match(beside.stderr, /Kafka 4[.]\d+[.]\d+ is ready/);
  assert.ok(existsSync(join(services.data, "services", "kafka")));
  const down = await run(["down", "--data", services.data]);
  assert.match(down.stderr, /Nothing was running\n.*add --zookeeper/);
  assert.equal(javas().length, 2);
});

test("neither kind of Kafka starts on the other's data, and --zookeeper is refused for the user's own Kafka", async () => {
  const inside = await run(["clean", "--data", join(services.data, "zookeeper")]);
  assert.equal(inside.code, 1);
  assert.match(inside.stderr, /was created with ZooKeeper: use --zookeeper --data/);
  const own = await run(["clean", "--creds", services.creds, ...here]);
  assert.equal(own.code, 2);
  assert.match(own.stderr, /--zookeeper starts a private Kafka/);
});

test("down stops everything, a killed program leaves nothing running, and reset deletes all data", async () => {
  const up = pidsOf(state());
  assert.equal((await run(["down", ...here])).code, 0);
  await untilGone(up);
  const following = start(["clean", "--follow", ...here]);
  await following.said(/Using Kafka/);
  const pids = pidsOf(state());
  assert.ok(pids.length >= 3);
  following.kill("SIGKILL");
  await following.done;
  await untilGone(pids);
  const reset = await run(["reset", "--yes", ...here]);
  assert.equal(reset.code, 0, reset.stderr);
  assert.deepEqual(await readdir(join(services.data, "zookeeper")), []);
  assert.ok(existsSync(join(services.data, "services")));
});

test("a short fault run: nothing is lost or duplicated", async () => {
  const faults = fileURLToPath(new URL("../faults/faults.ts", import.meta.url));
  const only = "kill-post,kill-broker,kill-zookeeper,broker-in-transaction,answer-lost,mixed";
  const program = [process.execPath, "--import", import.meta.resolve("tsx"), faults];
  const { code, stdout, stderr } = await start(["--short", "--zookeeper", "--seed", "1", "--only", only], { program })
    .done;
  assert.equal(code, 0, stderr.slice(-3_000));
  process.stdout.write(stdout);
});
