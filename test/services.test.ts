/** The services that the program starts by itself: shared, ended with their last user, whatever dies. */
import assert from "node:assert/strict";
import { once } from "node:events";
import { existsSync } from "node:fs";
import { mkdir, readFile, symlink, writeFile } from "node:fs/promises";
import { type AddressInfo, createServer } from "node:net";
import { join } from "node:path";
import { after, before, test } from "node:test";
import { setTimeout as sleep } from "node:timers/promises";
import { ask, within } from "../local/processes.ts";
import { run, runs, start, temporaryFolder, untilGone } from "./support.ts";

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

test("a supervisor that is killed takes its services with it, and the next command starts them again", async () => {
  const following = await follow();
  const before = await state();
  process.kill((before.supervisor as { pid: number }).pid, "SIGKILL");
  await untilGone(pidsOf(before));
  following.kill("SIGTERM");
  assert.equal((await following.done).code, 143);
  const explored = await run(["explore", "--data", data]);
  assert.equal(explored.code, 0, explored.stderr);
});

test("two commands share the services, and the last one to leave ends them", async () => {
  const first = await follow();
  const pids = pidsOf(await state());
  const second = await run(["status", "--data", data]);
  assert.equal(second.code, 0, second.stderr);
  assert.ok(await runs(pids[0] as number));
  const all = [...new Set([...pids, ...pidsOf(await state())])];
  first.kill("SIGINT");
  assert.equal((await first.done).code, 130);
  await untilGone(all);
});

test("Kafka is quick to start for one command and quick for long where it stays, and ready for its first transaction", async () => {
  const javaOf = async () => (await state()).children.findLast(({ name }) => name === "java")?.pid as number;
  const isBrief = async (pid: number) =>
    (await readFile(`/proc/${pid}/cmdline`, "utf8")).includes("-XX:TieredStopAtLevel=1");
  const first = await follow();
  assert.equal(await isBrief(await javaOf()), true);
  // Nobody has posted yet.
  const ofTransactions = join(data, "services/kafka/__transaction_state-0");
  for (let tries = 0; tries < 100 && !existsSync(ofTransactions); tries++) await sleep(50);
  assert.ok(existsSync(ofTransactions));
  const pids = pidsOf(await state());
  first.kill("SIGINT");
  await first.done;
  await untilGone(pids);

  const up = await run(["up", "--data", data]);
  assert.equal(up.code, 0, up.stderr);
  const stays = await javaOf();
  assert.equal(await isBrief(stays), false);
  process.kill(stays, "SIGKILL");
  await untilGone([stays]);
  const again = await run(["status", "--data", data]);
  assert.equal(again.code, 0, again.stderr);
  assert.equal(await isBrief(await javaOf()), false);
  const down = await run(["down", "--data", data]);
  assert.equal(down.code, 0, down.stderr);
});

test("state that names a process of somebody else harms nobody", async () => {
  const path = join(data, "services/state.json");
  const kept = await state();
  const stale = { ...kept, supervisor: { pid: process.pid, start: "1" }, children: [{ pid: process.pid, start: "1" }] };
  await writeFile(path, JSON.stringify(stale));
  const explored = await run(["explore", "--data", data]);
  assert.equal(explored.code, 0, explored.stderr);
});

test("a server that never ends its answer is left after 16 MB", async () => {
  const server = createServer((socket) => {
    const more = () => {
      while (!socket.destroyed && socket.write("x".repeat(1_000_000)));
    };
    socket.on("error", () => {}).on("drain", more);
    more();
  }).listen(0, "127.0.0.1");
  try {
    await once(server, "listening");
    const asked = ask((server.address() as AddressInfo).port, "dump");
    assert.ok(await within(5_000, asked));
    assert.ok((await asked).length < 20_000_000);
  } finally {
    server.close();
  }
});

test("where Java and Maven are missing, one error names the ways out", async () => {
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
  for (const word of ["MARIADB_HOME", "KAFKA_HOME", "db_creds.yaml"]) assert.ok(stderr.includes(word), stderr);
});

test("no password stands in an argument list, a log or a file that others can read", async () => {
  const following = await follow();
  const up = await run(["up", "--data", data, "--rows", "10"]);
  assert.equal(up.code, 0, up.stderr);
  const { password } = (await state()) as State & { password: string };
  assert.ok(password.length >= 16);
  for (const { pid } of (await state()).children) {
    assert.ok(!(await readFile(`/proc/${pid}/cmdline`, "utf8").catch(() => "")).includes(password));
  }
  for (const log of ["supervisor.log", "mariadb.log", "kafka.log"]) {
    assert.ok(!(await readFile(join(data, "services", log), "utf8").catch(() => "")).includes(password));
  }
  assert.ok(!(up.stdout + up.stderr).includes(password));
  following.kill("SIGINT");
  await following.done;
});
