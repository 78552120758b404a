/** `doctor` with and without running services. */
import assert from "node:assert/strict";
import { mkdir, readFile, rm, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { after, before, test } from "node:test";
import type { Connection } from "mysql2/promise";
import { leavesTransactionsOpen } from "../../cli/doctor_services.ts";
import type { Finding } from "../../cli/finding.ts";
import { connectMysql } from "../../db_conn.ts";
import { startKafka } from "../../local/broker.ts";
import { freePort } from "../../local/processes.ts";
import { openService, prepare } from "../support/bare_services.ts";
import { type SharedServices, shareServices } from "../support/services.ts";
import { ok, run, struck } from "../support/support.ts";

let services: SharedServices;
before(async () => {
  services = await shareServices({ rows: 50, name: "doctor" });
});
after(() => services?.close());

const findings = (stdout: string): Map<string, Finding> =>
  new Map((JSON.parse(stdout) as { findings: Finding[] }).findings.map((found) => [found.check, found]));

test("doctor finds no problem in running services, starts none and creates no topic", async () => {
  const args = ["doctor", ...services.at, "--prefix", "doctored", "--json"];
  const before = findings(ok(await run(args)).stdout);
  const states = Object.fromEntries([...before].map(([name, { state }]) => [name, state]));
  for (const name of [
    "MySQL",
    "pinterest_data",
    "geolocation_data",
    "user_data",
    "Kafka",
    "topics",
    "transactions",
    "lake",
  ]) {
    assert.equal(states[name], "ok", `${name}: ${JSON.stringify(before.get(name))}`);
  }
  assert.match(before.get("topics")?.text ?? "", /post will create doctored\.pin, /);
  ok(await run([...services.at, "--prefix", "doctored"]));
  const later = findings(ok(await run(args)).stdout);
  assert.match(later.get("topics")?.text ?? "", /^doctored\.pin, doctored\.geo, doctored\.user keep all messages and/);
  assert.match(later.get("lake")?.text ?? "", /^150 clean rows in .*, the ledger is balanced$/);
});

test("landed messages that are not cleaned yet are not an unbalanced ledger to doctor", async () => {
  const db = (await connectMysql(services.mysql)) as unknown as Connection;
  await db.query("INSERT INTO user_data VALUES (1000, 'New', 'One', 30, NULL)");
  await db.end();
  ok(await run(["post", ...services.at, "--prefix", "doctored"]));
  const env = struck(join(services.folder.path, "landed"), "kill 1 ^cleaning");
  assert.equal((await run(["clean", ...services.at, "--prefix", "doctored"], { env })).signal, "SIGKILL");
  const { lake } = Object.fromEntries(
    findings(ok(await run(["doctor", ...services.at, "--prefix", "doctored", "--json"])).stdout),
  );
  assert.match(lake?.text ?? "", /^150 clean rows in .*, the ledger is balanced$/);
  ok(await run(["clean", ...services.at, "--prefix", "doctored"]));
});

test("doctor shows each problem with what to do, exits with 1, and shows no password", async () => {
  const block = join(services.data, "lake", "silver", "geo", "0000.parquet");
  await rm(block);
  const path = join(services.folder.path, "wrong.yaml");
  const text = await readFile(services.creds, "utf8");
  await writeFile(path, text.replace(/BROKERS:[\s\S]*/, "BROKERS:\n    - 127.0.0.1:1\n"), { mode: 0o644 });
  const wrong = ok(await run(["doctor", "--creds", path, "--data", services.data, "--prefix", "doctored"]), 1);
  assert.match(wrong.stdout, /^! credentials {7}Others on this machine can read ".*wrong\.yaml": run chmod 600/m);
  assert.match(wrong.stdout, /^✗ Kafka {13}Cannot reach Kafka at 127\.0\.0\.1:1/m);
  const password = /PASSWORD: (\S+)/.exec(text)?.[1] as string;
  assert.ok(!(wrong.stdout + wrong.stderr).includes(password));
  const broken = findings(ok(await run(["doctor", ...services.at, "--prefix", "doctored", "--json"]), 1).stdout);
  assert.deepEqual(broken.get("lake"), {
    check: "lake",
    state: "failed",
    text: "the ledger of geo is not balanced",
    remedy: "if no clean is running: clean --rebuild rebuilds silver and rejects from bronze",
  });
  const other = findings(ok(await run(["doctor", ...services.at, "--prefix", "else", "--json"]), 1).stdout);
  assert.match(other.get("lake")?.text ?? "", /doctored/);
});

test("doctor knows brokers of Kafka 4.3 by the version of an API", () => {
  const warned = [undefined, 4, 5].map((maxVersion) =>
    leavesTransactionsOpen(maxVersion === undefined ? null : { 35: { maxVersion } }),
  );
  assert.deepEqual(warned, [false, false, true]);
});

test("doctor starts nothing if there are no services", async () => {
  const { stdout } = ok(
    await run(["doctor", "--data", join(services.folder.path, "none")], { cwd: services.folder.path }),
  );
  assert.match(stdout, /^✓ credentials {7}none: the program uses its private services$/m);
  assert.match(stdout, /^✓ private services {2}Java \S+; the next command starts them/m);
  assert.match(stdout, /^✓ lake {14}none in .* yet/m);
});

test("a broker that cannot be reached at the address that it advertises is no reachable Kafka", async () => {
  const folder = join(services.folder.path, "advertised");
  await mkdir(folder);
  const { tools, kafka } = await prepare(folder);
  const ports = { broker: await freePort(), controller: await freePort() };
  // As a broker in a container advertises a name that only its network knows.
  const settings = { "advertised.listeners": "PLAINTEXT://127.0.0.1:1" };
  const broker = await openService(() => startKafka(kafka, { folder, ports, settings }, tools));
  try {
    const path = join(folder, "creds.yaml");
    const text = await readFile(services.creds, "utf8");
    await writeFile(path, text.replace(/BROKERS:[\s\S]*/, `BROKERS:\n    - 127.0.0.1:${ports.broker}\n`), {
      mode: 0o600,
    });
    const { Kafka } = Object.fromEntries(
      findings(ok(await run(["doctor", "--creds", path, "--data", services.data, "--json"]), 1).stdout),
    );
    assert.equal(Kafka?.state, "failed");
    assert.match(Kafka?.text ?? "", /^Cannot reach Kafka at 127\.0\.0\.1:\d+/);
  } finally {
    await broker.stop("SIGKILL");
  }
});
