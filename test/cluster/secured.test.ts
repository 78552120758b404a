/**
 * A broker and a database that require TLS, passwords and permissions: certificates of a test authority, SASL PLAIN and
 * SCRAM-SHA-512, ACLs; a database user with SELECT only.
 */
import assert from "node:assert/strict";
import { randomBytes } from "node:crypto";
import { copyFileSync, mkdirSync, readdirSync, readFileSync, statSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { after, before, test } from "node:test";
import type { Connection } from "mysql2/promise";
import { stringify } from "yaml";
import { kafkaClient } from "../../kafka/client.ts";
import { startKafka } from "../../local/broker.ts";
import { freePort } from "../../local/processes.ts";
import { compareLake, compareTopics, readMessages } from "../faults/compare.ts";
import { type DatabaseServices, openDatabase, openService, prepare, type Service } from "../support/bare_services.ts";
import { findPython } from "../support/python.ts";
import { type Run, run, temporaryFolder } from "../support/support.ts";
import { certificates } from "./cluster.ts";

// Numbers of the protocol, because only kafka/kafkajs.ts may load kafkajs.
const resources = { TOPIC: 2, GROUP: 3, TRANSACTIONAL_ID: 5 };
const operations = { ALL: 2, READ: 3, WRITE: 4, CREATE: 5, DESCRIBE: 8, DESCRIBE_CONFIGS: 10 };
const patterns = { LITERAL: 3, PREFIXED: 4 };
const permissions = { DENY: 2, ALLOW: 3 };

const secret = () => randomBytes(12).toString("hex");
const passwords = { plain: secret(), scram: secret(), reader: secret() };

let folder: Awaited<ReturnType<typeof temporaryFolder>>;
let broker: Service;
let own: DatabaseServices;
let root: Connection;
let certs: ReturnType<typeof certificates>;
/** The broker's listeners: for the test itself, for clients, and one whose certificate has another name. */
const ports = { open: 0, secure: 0, misnamed: 0 };
const said: string[] = [];

before(async () => {
  folder = await temporaryFolder();
  const { tools, kafka, server } = await prepare(folder.path);
  certs = certificates(join(folder.path, "certificates"));
  certs.authority("stranger");
  const good = certs.server("broker", { ca: "ours", names: "DNS:localhost,IP:127.0.0.1" });
  const other = certs.server("misnamed", { ca: "ours", names: "DNS:elsewhere.example" });
  for (const name of Object.keys(ports) as (keyof typeof ports)[]) ports[name] = await freePort();
  const home = join(folder.path, "kafka-secured");
  mkdirSync(home, { mode: 0o700 });
  const listeners = `PLAINTEXT://127.0.0.1:${ports.open},SECURE://127.0.0.1:${ports.secure},MISNAMED://127.0.0.1:${ports.misnamed}`;
  const controller = await freePort();
  const plain = "org.apache.kafka.common.security.plain.PlainLoginModule required";
  const settings = {
    listeners: `${listeners},CONTROLLER://127.0.0.1:${controller}`,
    "advertised.listeners": listeners,
    "listener.security.protocol.map": "PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT,SECURE:SASL_SSL,MISNAMED:SASL_SSL",
    "sasl.enabled.mechanisms": "PLAIN,SCRAM-SHA-512",
    "listener.name.secure.plain.sasl.jaas.config": `${plain} user_alice="${passwords.plain}";`,
    "listener.name.secure.scram-sha-512.sasl.jaas.config":
      "org.apache.kafka.common.security.scram.ScramLoginModule required;",
    "listener.name.misnamed.plain.sasl.jaas.config": `${plain} user_alice="${passwords.plain}";`,
    "listener.name.misnamed.scram-sha-512.sasl.jaas.config":
      "org.apache.kafka.common.security.scram.ScramLoginModule required;",
    "listener.name.secure.ssl.keystore.type": "PEM",
    "listener.name.secure.ssl.keystore.location": good.both,
    "listener.name.misnamed.ssl.keystore.type": "PEM",
    "listener.name.misnamed.ssl.keystore.location": other.both,
    "authorizer.class.name": "org.apache.kafka.metadata.authorizer.StandardAuthorizer",
    "super.users": "User:ANONYMOUS",
  };
  const format = ["--add-scram", `SCRAM-SHA-512=[name=bob,password=${passwords.scram}]`];
  const place = { folder: home, ports: { broker: ports.open, controller }, settings, format };
  broker = await openService(() => startKafka(kafka, place, tools));

  const served = certs.server("database", { ca: "ours", names: "DNS:localhost" });
  const at = join(folder.path, "certificates");
  for (const [from, to] of [
    [served.certificate, "mysql.pem"],
    [served.privateKey, "mysql.key"],
  ] as const)
    copyFileSync(from, join(at, to));
  const flags = ["--ssl=1", `--ssl-cert=${join(at, "mysql.pem")}`, `--ssl-key=${join(at, "mysql.key")}`];
  own = await openDatabase(server, folder.path, tools, flags);
  await own.base();
  root = await own.root();
  await root.query(`CREATE USER reader@'%' IDENTIFIED BY '${passwords.reader}' REQUIRE SSL`);
  await root.query("GRANT SELECT ON pinterest_base.* TO reader@'%'");

  const admin = openAdmin();
  const allow = (resourceType: number, operation: number) =>
    ["User:alice", "User:bob"].map((principal) => ({
      ...{ resourceType, resourceName: "secured-", resourcePatternType: patterns.PREFIXED },
      ...{ principal, host: "*", operation, permissionType: permissions.ALLOW },
    }));
  const { TOPIC, TRANSACTIONAL_ID, GROUP } = resources;
  const { CREATE, READ, WRITE, DESCRIBE, DESCRIBE_CONFIGS } = operations;
  await admin.createAcls({
    acl: [
      ...[CREATE, READ, WRITE, DESCRIBE, DESCRIBE_CONFIGS].flatMap((operation) => allow(TOPIC, operation)),
      ...[WRITE, DESCRIBE].flatMap((operation) => allow(TRANSACTIONAL_ID, operation)),
      ...allow(GROUP, READ),
    ],
  });
  await admin.disconnect();
});

after(async () => {
  root?.destroy();
  await Promise.all([broker?.stop("SIGTERM"), own?.database.stop("SIGTERM")]);
  await folder.remove();
});

const openAdmin = () =>
  kafkaClient({ brokers: [`127.0.0.1:${ports.open}`], prefix: "", partitions: 1, replicationFactor: 1 }).admin();

interface Given {
  name: string;
  kafka?: object;
  mysql?: object;
  env?: NodeJS.ProcessEnv;
}

const sasl = {
  plain: { MECHANISM: "plain", USERNAME: "alice", PASSWORD: passwords.plain },
  scram: { MECHANISM: "scram-sha-512", USERNAME: "bob", PASSWORD: passwords.scram },
};

/** Runs the program with separate credentials in a separate folder. */
async function go(args: string[], { name, kafka = {}, mysql = {}, env = {} }: Given): Promise<Run> {
  const creds = join(folder.path, `${name}.yaml`);
  const HOST = "localhost";
  const { port: PORT } = own.mysql;
  const ca = certs.authority("ours");
  const content = {
    ...{ HOST, PORT, USER: "reader", PASSWORD: passwords.reader, DATABASE: "pinterest_base", SSL_CA: ca, ...mysql },
    KAFKA: { BROKERS: [`127.0.0.1:${ports.secure}`], PREFIX: `secured-${name}`, SSL_CA: ca, ...kafka },
  };
  writeFileSync(creds, stringify(content), { mode: 0o600 });
  const data = join(folder.path, `data-${name}`);
  const done = await run([...args, "--creds", creds, "--data", data, "--wait", "20"], { env });
  said.push(done.stdout, done.stderr);
  return done;
}

for (const [name, SASL] of Object.entries(sasl)) {
  test(`the whole job over TLS with SASL ${SASL.MECHANISM} and a database user with SELECT only`, async () => {
    const done = await go([], { name, kafka: { SASL, PARTITIONS: 3 } });
    assert.equal(done.code, 0, done.stderr);
    const compared = {
      ...{ db: { ...own.mysql, database: "pinterest_base" }, prefix: `secured-${name}` },
      ...{ lake: join(folder.path, `data-${name}`, "lake"), copies: 1, isForeign: () => false },
    };
    const messages = await readMessages([`127.0.0.1:${ports.open}`], compared, await findPython());
    const nothing = { lost: 0, doubled: 0, wrong: [] };
    assert.deepEqual(await compareTopics(compared, messages), nothing);
    assert.deepEqual(await compareLake(compared, messages), nothing);
  });
}

test("the passwords can come from the environment alone", async () => {
  const { PASSWORD: _, ...SASL } = sasl.scram;
  const given = { name: "environment", kafka: { SASL }, mysql: { PASSWORD: "wrong" } };
  const env = { PIPELINE_MYSQL_PASSWORD: passwords.reader, PIPELINE_KAFKA_SASL_PASSWORD: passwords.scram };
  const posted = await go(["post"], { ...given, env });
  assert.equal(posted.code, 0, posted.stderr);
});

const refused = (done: Run, pattern: RegExp) => {
  assert.equal(done.code, 2, done.stderr);
  assert.match(done.stderr, pattern);
  assert.ok(!/waiting up to/.test(done.stderr), done.stderr);
};

test("a broker with a certificate of another authority is refused without a wait", async () => {
  const kafka = { SASL: sasl.scram, SSL_CA: certs.authority("stranger") };
  refused(await go(["post"], { name: "ca", kafka }), /Cannot trust Kafka at .*: .*certificate.*; check KAFKA[.]SSL_CA/);
  const system = await go(["clean"], { name: "ca", kafka: { SASL: sasl.scram, SSL_CA: undefined, SSL: true } });
  refused(system, /Cannot trust Kafka at .*certificate/);
});

test("a broker with a certificate for another name is refused without a wait", async () => {
  const kafka = { SASL: sasl.scram, BROKERS: [`127.0.0.1:${ports.misnamed}`] };
  refused(await go(["post"], { name: "name", kafka }), /Cannot trust Kafka at .*does not match certificate/);
});

test("a wrong password is refused with the broker's reason, for both mechanisms", async () => {
  for (const SASL of Object.values(sasl)) {
    const done = await go(["post"], { name: "password", kafka: { SASL: { ...SASL, PASSWORD: "hunter2" } } });
    refused(done, /Cannot log in to Kafka at .*uthentication failed.*; check KAFKA[.]SASL/);
    assert.ok(!done.stderr.includes("hunter2"));
  }
});

test("a mechanism that the broker does not support, and a login where it allows none, are refused with its reason", async () => {
  const kafka = { SASL: { ...sasl.scram, MECHANISM: "scram-sha-256" } };
  refused(
    await go(["post"], { name: "mechanism", kafka }),
    /Cannot log in to Kafka at .*mechanism; check KAFKA[.]SASL/,
  );
  const open = { SASL: sasl.scram, BROKERS: [`127.0.0.1:${ports.open}`], SSL_CA: undefined };
  refused(await go(["post"], { name: "mechanism", kafka: open }), /Cannot log in to Kafka at .*SASL state/);
});

test("topics without permission are refused with the broker's reason", async () => {
  const kafka = { SASL: sasl.scram, PREFIX: "forbidden" };
  for (const command of ["post", "emulate", "clean"]) {
    const done = await go(command === "emulate" ? [command, "--limit", "1"] : [command], { name: "topic", kafka });
    refused(
      done,
      /refuses: .*uthoriz.*; grant the user of KAFKA[.]SASL the permissions that topics forbidden[.][*] need/,
    );
  }
});

test("a user with permission to read the topics but not to write is refused with the broker's reason", async () => {
  const admin = openAdmin();
  const denied = ["pin", "geo", "user"].map((table) => ({
    ...{ resourceType: resources.TOPIC, resourceName: `secured-scram.${table}`, host: "*" },
    ...{ resourcePatternType: patterns.LITERAL, principal: "User:alice" },
    ...{ operation: operations.WRITE, permissionType: permissions.DENY },
  }));
  await admin.createAcls({ acl: denied });
  await admin.disconnect();
  const kafka = { SASL: sasl.plain, PREFIX: "secured-scram" };
  refused(await go(["post", "--full"], { name: "write", kafka }), /refuses: .*uthoriz/);
});

test("a user without permission for the transactional ids is refused with the broker's reason", async () => {
  const admin = openAdmin();
  const denied = {
    ...{ resourceType: resources.TRANSACTIONAL_ID, resourceName: "secured-plain", host: "*" },
    ...{ resourcePatternType: patterns.PREFIXED, principal: "User:alice" },
    ...{ operation: operations.ALL, permissionType: permissions.DENY },
  };
  await admin.createAcls({ acl: [denied] });
  await admin.disconnect();
  for (const args of [
    ["post", "--full"],
    ["emulate", "--limit", "1"],
  ])
    refused(
      await go(args, { name: "plain", kafka: { SASL: sasl.plain } }),
      /refuses: Transactional Id authorization failed; grant/,
    );
});

test("a database with a certificate of another authority or for another name is refused", async () => {
  const kafka = { SASL: sasl.plain };
  const stranger = await go(["explore"], { name: "db", kafka, mysql: { SSL_CA: certs.authority("stranger") } });
  refused(stranger, /Cannot trust MySQL at localhost:\d+: .*certificate.*; check SSL_CA/);
  assert.equal((await go(["explore"], { name: "db", kafka })).code, 0);
  const at = join(folder.path, "certificates");
  const { certificate, privateKey } = certs.server("database2", { ca: "ours", names: "DNS:elsewhere.example" });
  copyFileSync(certificate, join(at, "mysql.pem"));
  copyFileSync(privateKey, join(at, "mysql.key"));
  await root.query("FLUSH SSL");
  const misnamed = await go(["explore"], { name: "db", kafka });
  refused(misnamed, /Cannot trust MySQL at localhost:\d+: .*does not match certificate/);
  const address = await go(["explore"], { name: "db", kafka, mysql: { HOST: "127.0.0.1" } });
  assert.equal(address.code, 0, address.stderr);
});

test("a database user with a wrong password is refused", async () => {
  const plain = { USER: "reader", PASSWORD: "hunter2" };
  refused(
    await go(["explore"], { name: "user", mysql: { HOST: "127.0.0.1", ...plain } }),
    /Cannot use MySQL at .*Access denied/,
  );
});

/** All files below a folder that are small enough to be logs or settings. */
function filesBelow(path: string): string[] {
  return readdirSync(path, { withFileTypes: true }).flatMap((entry) => {
    const below = join(path, entry.name);
    if (entry.isDirectory()) return filesBelow(below);
    return entry.isFile() && statSync(below).size < 10_000_000 ? [below] : [];
  });
}

test("no password is in the output or in the lakes", () => {
  const lakes = readdirSync(folder.path).filter((name) => name.startsWith("data-"));
  const files = lakes.flatMap((name) => filesBelow(join(folder.path, name)));
  assert.ok(files.length > 10 && said.join("").length > 1_000);
  const texts = [...said, ...files.map((file) => readFileSync(file, "latin1"))];
  for (const password of Object.values(passwords)) assert.ok(!texts.some((text) => text.includes(password)));
});
