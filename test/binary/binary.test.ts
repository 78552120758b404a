/**
 * The executables on a bare system: an empty folder, an empty HOME, a PATH of basic shell tools, and no network for the
 * complete one.
 */
import assert from "node:assert/strict";
import { execFileSync, spawnSync } from "node:child_process";
import { chownSync, existsSync, readdirSync, readFileSync, statSync } from "node:fs";
import { chmod, cp, mkdir, mkdtemp, readFile, rm, symlink, truncate, utimes, writeFile } from "node:fs/promises";
import { basename, join } from "node:path";
import { after, before, test } from "node:test";
import { fileURLToPath } from "node:url";
import { cacheFolder } from "../../runtime/cache.ts";
import { run, start, temporaryFolder } from "../support/support.ts";

const root = fileURLToPath(new URL("../../", import.meta.url));
const version = "0.0.999";
let folder: Awaited<ReturnType<typeof temporaryFolder>>;
let thin: string;
let complete: string;
let newer: string;
let tools: string;

before(async () => {
  folder = await temporaryFolder();
  tools = join(folder.path, "bin");
  await mkdir(tools);
  for (const name of ["sh", "ls", "cat", "ps", "sleep", "rm", "mkdir"])
    await symlink(execFileSync("sh", ["-c", `command -v ${name}`], { encoding: "utf8" }).trim(), join(tools, name));
  thin = build(root, "thin");
  complete = build(root, "complete", ["--services"]);
  newer = build(await copySources(), "newer");
});
after(() => folder.remove());

/** Builds an executable with fast compression. */
function build(from: string, name: string, args: string[] = []): string {
  const out = join(folder.path, name);
  const command = ["--import", import.meta.resolve("tsx"), "build/binary.ts", "--level", "1", "--out", out, ...args];
  execFileSync(process.execPath, command, { cwd: from, stdio: ["ignore", "ignore", "inherit"] });
  return out;
}

/** The program's sources with another version number and another answer. */
async function copySources(): Promise<string> {
  const copy = join(folder.path, "sources");
  const filter = (path: string) => !/^(node_modules|dist|data|\.git)$/.test(basename(path));
  await cp(root, copy, { recursive: true, filter: (path) => path === root || filter(path) });
  await symlink(join(root, "node_modules"), join(copy, "node_modules"));
  const packageJson = join(copy, "package.json");
  await writeFile(
    packageJson,
    (await readFile(packageJson, "utf8")).replace(/"version": ".*"/, `"version": "${version}"`),
  );
  return copy;
}

/** A folder with an empty HOME. */
async function bare(): Promise<{ cwd: string; home: string; cache: string }> {
  const cwd = await mkdtemp(join(folder.path, "bare-"));
  const home = join(cwd, "home");
  await mkdir(home);
  return { cwd, home, cache: join(home, ".cache/pinterest-data-pipeline") };
}

const isRoot = process.getuid?.() === 0;

/** Hides libraries that a bare system may not have; needs root. */
const hidden = ["libsystemd.so.0", "libcrypt.so.1"].flatMap((name) => {
  const [, path] =
    new RegExp(`${name} .*=> (/.*)`).exec(execFileSync("/sbin/ldconfig", ["-p"], { encoding: "utf8" })) ?? [];
  return path ? [path] : [];
});
const mask = isRoot ? hidden.map((path) => `mount --bind /dev/null ${path} && `).join("") : "";

const hasNamespaces = spawnSync("unshare", ["-n", "-m", "true"]).status === 0;
const offline = (first: string) =>
  hasNamespaces ? ["unshare", "-n", "-m", "sh", "-c", `${first}ip link set lo up && exec "$@"`, "sh"] : [];

/** The command of an executable on a bare system. `services` lets a thin one use installed services. */
const alone = (executable: string, home: string, more: string[] = []) => [
  ...offline(more.length > 0 ? "" : mask),
  ...["env", "-i", `HOME=${home}`, `PATH=${tools}`, ...more, executable],
];

/** The services for a thin executable: those that the sources have downloaded, and the installed Java. */
const installed = () => {
  const find = (name: string) => readdirSync(cacheFolder()).find((file) => new RegExp(`^${name}-[\\d.]+$`).test(file));
  const java = execFileSync("sh", ["-c", "readlink -f $(command -v java)"], { encoding: "utf8" }).trim();
  return [
    `MARIADB_HOME=${join(cacheFolder(), find("mariadb") ?? "")}`,
    `KAFKA_HOME=${join(cacheFolder(), find("kafka") ?? "")}`,
    `JAVA_HOME=${java.replace(/\/bin\/java$/, "")}`,
  ];
};

/** The results of a run, without times and paths. */
function found(stdout: string): object {
  const { answers, matches, ledger, sources } = JSON.parse(stdout);
  assert.equal(Object.keys(answers).length, 9);
  return { answers, matches, ledger, sources };
}

let expected: object;
test("the sources answer", async () => {
  const { cwd } = await bare();
  const { code, stdout, stderr } = await run(["--json"], { cwd });
  assert.equal(code, 0, stderr);
  expected = found(stdout);
});

test("the thin executable gives the same answers with installed services", async () => {
  const { cwd, home, cache } = await bare();
  const program = alone(thin, home, installed());
  const { code, stdout, stderr } = await run(["--json"], { cwd, program });
  assert.equal(code, 0, stderr);
  assert.deepEqual(found(stdout), expected);
  assert.deepEqual(
    readdirSync(cache).map((name) => name.replace(/-.*/, "")),
    ["natives"],
  );
});

test("the complete executable gives the same answers on a bare system, and every command works", async (t) => {
  if (!hasNamespaces) t.diagnostic("Without network namespaces here: it could have used the network");
  const { cwd, home, cache } = await bare();
  const command = async (args: string[], wanted = 0) => {
    const { code, stdout, stderr } = await run(args, { cwd, program: alone(complete, home) });
    assert.equal(code, wanted, `${args.join(" ")}: ${stderr}`);
    return { stdout, stderr };
  };
  assert.deepEqual(found((await command(["--json"])).stdout), expected);
  assert.deepEqual(
    readdirSync(cache)
      .map((name) => name.replace(/-.*/, ""))
      .sort(),
    ["java", "kafka", "mariadb", "natives"],
  );
  for (const name of readdirSync(cache)) assert.equal(statSync(join(cache, name)).mode & 0o777, 0o700, name);

  const licences = (await command(["--licences"])).stdout;
  for (const part of ["Apache License", "@duckdb/node-bindings-linux-x64 ", "@napi-rs/snappy-", "OpenJDK ", "MariaDB "])
    assert.ok(licences.includes(part), part);
  assert.match((await command(["explore", "--index", "5"])).stdout, /pin_result/);
  assert.match((await command(["emulate", "--limit", "20", "--rate", "100/s", "--seed", "1"])).stderr, /20/);
  await command(["clean"]);
  assert.match((await command(["status"])).stdout, /pin /);
  await command(["clean", "--rebuild"]);
  await command(["eject", "sql"]);
  await writeFile(join(cwd, "sql/answers/4_top_country.sql"), "-- Mine\nSELECT 'nowhere' AS country");
  const edited = await command(["report", "--sql", "sql"]);
  assert.match(edited.stdout, /Mine \(top_country\)\n {2}country\n {2}-+\n {2}nowhere\n/);
  assert.match(edited.stderr, new RegExp(`sql {5}from "${join(cwd, "sql")}"`));
  await writeFile(join(cwd, "sql/answers/4_top_country.sql"), "-- Mine\nSELECT nothing");
  const broken = await command(["report", "--sql", "sql"], 1);
  assert.ok(broken.stderr.includes(`Cannot run "${join(cwd, "sql/answers/4_top_country.sql")}"`), broken.stderr);
  await command(["reset", "--yes"]);
});

test("serve shows its pages, up keeps running, and a newer executable stops it", async () => {
  const { cwd, home } = await bare();
  // With this machine's network, because the page is requested from outside.
  const program = ["env", "-i", `HOME=${home}`, `PATH=${tools}`, complete];
  const up = await run(["up", "--rows", "50"], { cwd, program });
  assert.equal(up.code, 0, up.stderr);
  assert.ok(up.stdout.includes(`${complete} down`), up.stdout);
  const serving = start(["serve", "--port", "0"], { cwd, program });
  await serving.said(/http:\/\/[\d.:]+/);
  const [address] = /http:\/\/[\d.:]+/.exec(serving.output()) ?? [];
  for (const path of ["/", "/page/page.js", "/page/page.css", "/openapi.json", "/status"]) {
    const { status } = await fetch(`${address}${path}`);
    assert.equal(status, 200, path);
  }
  serving.kill("SIGTERM");
  assert.equal((await serving.done).code, 143);
  const down = await run(["down"], { cwd, program: ["env", "-i", `HOME=${home}`, `PATH=${tools}`, newer] });
  assert.deepEqual([down.code, down.stderr], [0, "Stopping the local services\nStopped\n"]);
});

test("killed at any time and run again, it gives the same answers", async () => {
  const { cwd, home } = await bare();
  const program = alone(complete, home);
  for (const moment of [/Unpacking java/, /Kafka .* is ready/, /^start/m, /^post/m]) {
    const running = start([], { cwd, program });
    await running.said(moment);
    killTree(running.pid);
    await running.done;
  }
  const { code, stdout, stderr } = await run(["--json"], { cwd, program });
  assert.equal(code, 0, stderr);
  assert.deepEqual(found(stdout), expected);
  const left = readdirSync(join(home, ".cache/pinterest-data-pipeline")).filter((name) => name.startsWith("."));
  assert.deepEqual(left, []);
});

/** Kills a process and its children; with a separate namespace there is a shell between. */
function killTree(pid: number): void {
  const children = readFileSync(`/proc/${pid}/task/${pid}/children`, "utf8").trim().split(" ").filter(Boolean);
  for (const child of children) killTree(Number(child));
  try {
    process.kill(pid, "SIGKILL");
  } catch {
    // It has ended.
  }
}

test("a newer version continues with the data of the older one, and deletes packs unused for a day", async () => {
  const { cwd, home, cache } = await bare();
  const first = await run(["--json"], { cwd, program: alone(thin, home, installed()) });
  assert.equal(first.code, 0, first.stderr);
  const [older = ""] = readdirSync(cache);
  const yesterday = new Date(Date.now() - 25 * 3600 * 1000);
  await utimes(join(cache, older), yesterday, yesterday);
  await cp(join(cache, older), join(cache, older.replace(/-[^-]*-/, "-0.0.1-")), { recursive: true });
  const second = await run(["--json"], { cwd, program: alone(newer, home, installed()) });
  assert.equal(second.code, 0, second.stderr);
  assert.deepEqual(found(second.stdout), expected);
  const left = readdirSync(cache).sort();
  assert.deepEqual(left.length, 2, left.join()); // the copy is new
  assert.ok(!left.includes(older));
  assert.ok(left.some((name) => name.startsWith(`natives-${version}-`)));
});

test("concurrent unpacking, a cache behind a link and a read-only cache work", async () => {
  const { cwd, home, cache } = await bare();
  const other = join(cwd, "bigger disk");
  await mkdir(other);
  await mkdir(join(home, ".cache"));
  await symlink(other, cache);
  const up = await run(["up", "--rows", "300"], { cwd });
  assert.equal(up.code, 0, up.stderr);
  try {
    const program = ["env", "-i", `HOME=${home}`, `PATH=${tools}`, thin];
    const post = () => run(["post", "--creds", "data/services/db_creds.yaml"], { cwd, program });
    for (let round = 0; round < 3; round++) {
      await rm(other, { recursive: true });
      await mkdir(other);
      const { code, stderr } = await post();
      assert.equal(code, 0, stderr);
      assert.deepEqual(
        readdirSync(other).map((name) => name.replace(/-.*/, "")),
        ["natives"],
      );
    }
    if (!isRoot || !hasNamespaces) return;
    const readOnly = `mount --bind "${home}" "${home}" && mount -o remount,ro,bind "${home}" && exec "$@"`;
    const again = ["post", "--creds", "data/services/db_creds.yaml"];
    const locked = ["unshare", "-m", "sh", "-c", readOnly, "sh", "env", "-i", `HOME=${home}`, `PATH=${tools}`, thin];
    const { code, stderr } = await run(again, { cwd, program: locked });
    assert.equal(code, 0, stderr);
  } finally {
    await run(["down"], { cwd });
  }
});

test("files left empty by a power cut are unpacked again", async () => {
  const { cwd, home, cache } = await bare();
  await mkdir(join(cwd, "data/lake"), { recursive: true });
  const status = () => run(["clean", "--rebuild"], { cwd, program: alone(thin, home) });
  const whole = await status();
  const [name = ""] = readdirSync(cache);
  await truncate(join(cache, name, "libduckdb.so"), 0);
  assert.deepEqual(await status(), whole);
  assert.ok(statSync(join(cache, name, "libduckdb.so")).size > 1e7);
});

test("a cache of another user, a full disk and a noexec disk give errors that say what to do", async (t) => {
  const { cwd, home, cache } = await bare();
  await mkdir(join(cwd, "data/lake"), { recursive: true });
  const refused = async (program: string[], why: RegExp) => {
    // Directly, and through the supervisor.
    for (const args of [["clean", "--rebuild"], []]) {
      const { code, stderr } = await run(args, { cwd, program });
      assert.equal(code, 1, stderr);
      assert.match(stderr, why);
      assert.match(stderr, /XDG_CACHE_HOME/);
      assert.doesNotMatch(stderr, /Node\.js v|\n +at /);
    }
  };
  await mkdir(cache, { recursive: true });
  await chmod(cache, 0o777);
  await refused(alone(thin, home), /others may write to it; run chmod go-w /);
  await chmod(cache, 0o700);
  if (!isRoot || !hasNamespaces) return t.skip("Only root can mount a disk and give a folder away");
  chownSync(cache, 12345, 12345);
  await refused(alone(thin, home), /belongs to another user \(uid 12345\)/);
  await rm(cache, { recursive: true });
  const mounted = (options: string) => {
    const mount = `mount -t tmpfs -o ${options} none "${home}" && exec "$@"`;
    return ["unshare", "-m", "sh", "-c", mount, "sh", "env", "-i", `HOME=${home}`, `PATH=${tools}`, thin];
  };
  await refused(
    mounted("size=20m"),
    /Error: Cannot unpack natives \(\d+ MB\) into ".*": its disk is full; make room there, or choose/,
  );
  await refused(mounted("size=200m,noexec"), /Error: Cannot load ".*mounted noexec/);
  assert.ok(!existsSync(cache));
});
