/** The launcher `bin/pipeline`: it runs a bundle of the sources as they are now. */
import assert from "node:assert/strict";
import { readdirSync, readFileSync, statSync } from "node:fs";
import { cp, mkdir, realpath, rename, rm, writeFile } from "node:fs/promises";
import { createRequire } from "node:module";
import { dirname, join } from "node:path";
import { after, before, test } from "node:test";
import { connectMysql } from "../../db_conn.ts";
import { type SharedServices, shareServices } from "../support/services.ts";
import { copyProgram, run, start } from "../support/support.ts";

let services: SharedServices;
let copy: string;
let cache: string;

before(async () => {
  services = await shareServices({ rows: 10, name: "launcher" });
  copy = join(services.folder.path, "copy");
  cache = join(copy, "node_modules/.cache/pinterest-data-pipeline");
  await mkdir(copy);
  await copyProgram(copy);
});

after(() => services?.close());

const launch = (args: string[], env?: NodeJS.ProcessEnv) =>
  run(args, { cwd: copy, program: [process.execPath, join(copy, "bin/pipeline")], ...(env && { env }) });
const version = async (env?: NodeJS.ProcessEnv) => {
  const { code, stdout, stderr } = await launch(["--version"], env);
  assert.equal(stderr, "");
  assert.equal(code, 0);
  return stdout.trim();
};
/** The folder of the bundle that the copy would start now. */
function currentFolder(): string {
  const { find } = createRequire(import.meta.url)(join(copy, "bin/bundle.cjs")) as Bundling;
  return dirname(find().main.path);
}
interface Bundling {
  find: () => { main: { path: string } };
}
const bundles = () => readdirSync(cache).filter((name) => /^[0-9a-f]+$/.test(name));
const edit = (path: string, from: string | RegExp, to: string) => {
  const text = readFileSync(join(copy, path), "utf8");
  assert.notEqual(text.replace(from, to), text);
  return writeFile(join(copy, path), text.replace(from, to));
};

test("sources are bundled once, and again after an edit; an edit undone finds its former bundle", async () => {
  assert.equal(await version(), "0.1.0");
  const [first] = bundles();
  assert.equal(await version(), "0.1.0");
  assert.deepEqual(bundles(), [first]);
  await edit("package.json", '"version": "0.1.0"', '"version": "0.1.1"');
  assert.equal(await version(), "0.1.1");
  await edit(
    "cli/help.ts",
    /^export function help\(\)(.*)$/m,
    "export function help()$1\n  if (true) return 'edited';",
  );
  assert.equal((await launch(["--help"])).stdout, "edited\n");
  assert.equal(bundles().length, 3);
  await edit("cli/help.ts", /\n {2}if \(true\) return 'edited';/, "");
  await edit("package.json", '"version": "0.1.1"', '"version": "0.1.0"');
  const scripts = () =>
    readdirSync(join(cache, String(first))).map((name) => statSync(join(cache, String(first), name)).ino);
  const before = scripts();
  assert.equal(await version(), "0.1.0");
  assert.equal(bundles().length, 3);
  assert.deepEqual(scripts(), before);
});

test("a source with an error is named with its line, and runs again when fixed", async () => {
  await edit("main.ts", "void start();", "void start(;");
  const { code, stderr } = await launch(["--version"]);
  assert.equal(code, 1);
  assert.match(stderr, /ERROR.*\n\n {4}main\.ts:\d+:\d+:\n.*void start\(;/);
  await edit("main.ts", "void start(;", "void start();");
  assert.equal(await version(), "0.1.0");
});

test("concurrent starts after an edit all run the edited source", async () => {
  await edit("package.json", '"version": "0.1.0"', '"version": "0.1.2"');
  assert.deepEqual(await Promise.all([version(), version(), version()]), ["0.1.2", "0.1.2", "0.1.2"]);
  assert.deepEqual(
    readdirSync(cache).filter((name) => name.startsWith(".")),
    [],
  );
});

test("damaged compiled code is compiled again", async () => {
  const folder = currentFolder();
  const compiled = readdirSync(folder).filter((name) => name.endsWith(".v8"));
  assert.ok(compiled.length > 0);
  for (const end of [0, 20, 5_000, undefined]) {
    for (const name of compiled) {
      const content = readFileSync(join(folder, name)).subarray(0, end);
      if (end === undefined) content.writeUInt8(content.readUInt8(1_000_000) ^ 0xff, 1_000_000); // V8 would crash
      await writeFile(join(folder, name), content);
    }
    assert.equal(await version(), "0.1.2");
  }
});

test("damaged scripts are bundled again, and a missing one", async () => {
  const folder = currentFolder();
  for (const name of readdirSync(folder).filter((file) => file.endsWith(".cjs"))) {
    for (const damage of ["", readFileSync(join(folder, name), "utf8").slice(0, 3_000), undefined]) {
      if (damage === undefined) await rm(join(folder, name));
      else await writeFile(join(folder, name), damage);
      assert.equal(await version(), "0.1.2");
      assert.equal(currentFolder(), folder);
      assert.deepEqual(
        readdirSync(cache).filter((left) => left.startsWith(".")),
        [],
      );
    }
  }
  const compiled = readdirSync(folder).find((name) => name.endsWith(".v8")) as string;
  await rm(join(folder, compiled));
  await mkdir(join(folder, compiled)); // cannot be read
  assert.equal(await version(), "0.1.2");
});

test("an edited package takes effect", async () => {
  const folder = join(copy, "node_modules/p-limit");
  const from = await realpath(folder);
  await rm(folder);
  await cp(from, folder, { recursive: true });
  const text = readFileSync(join(folder, "index.js"), "utf8");
  await writeFile(join(folder, "index.js"), `process.stdout.write("edited ");\n${text}`);
  assert.equal(await version(), "edited 0.1.2");
  await writeFile(join(folder, "index.js"), text);
  assert.equal(await version(), "0.1.2");
});

test("one of several old bundles is deleted", async () => {
  for (let n = 3; n < 7; n++) {
    await edit("package.json", /"version": "0\.1\.\d"/, `"version": "0.1.${n}"`);
    assert.equal(await version(), `0.1.${n}`);
  }
  assert.equal(bundles().length, 5);
});

test("a run whose bundle was deleted still starts threads", async () => {
  const program = [process.execPath, join(copy, "bin/pipeline")];
  const args = ["--follow", "--creds", services.creds, "--prefix", "deleted", "--data", join(copy, "long")];
  const running = start(args, { cwd: copy, program });
  await running.said(/Using MySQL/);
  await rm(cache, { recursive: true });
  await running.said(/^follow /m);
  const db = await connectMysql(services.mysql);
  await db.query("UPDATE user_data SET age = age + 1 LIMIT 1");
  db.destroy();
  await running.said(/^post {4}user 1$/m);
  await running.said(/^clean {3}user 1 message/m);
  running.kill("SIGTERM");
  const { code, stderr } = await running.done;
  assert.doesNotMatch(stderr, /Error/);
  assert.equal(code, 143);
  assert.equal(await version(), "0.1.6");
});

test("where nothing can be written, and with DEBUG, the sources run, threads too", async () => {
  await rm(cache, { recursive: true });
  await writeFile(cache, "a file in the place of the folder");
  assert.equal(await version(), "0.1.6");
  const args = ["--creds", services.creds, "--prefix", "launched"];
  const { code, stderr } = await launch(["post", ...args]);
  assert.match(stderr, /^post {4}pin 10, geo 10, user 10 in /m);
  assert.equal(code, 0);
  await rm(cache);
  assert.match((await launch(["clean", "--data", join(copy, "data"), ...args], { DEBUG: "1" })).stderr, /30 messages/);
  assert.match(
    (await launch(["fly"], { DEBUG: "1" })).stderr,
    /^UsageError: .*\n {4}at readArguments \(.*arguments\.ts:\d/,
  );
});

test("without packages it says what to do, and signals reach it", async () => {
  await rename(join(copy, "node_modules"), join(copy, "packages"));
  const { code, stderr } = await launch(["--version"]);
  assert.equal(stderr, `Error: The program's packages are missing; run npm ci in "${copy}"\n`);
  assert.equal(code, 1);
  await rename(join(copy, "packages"), join(copy, "node_modules"));
  const program = [process.execPath, join(copy, "bin/pipeline")];
  const following = start(["post", "--follow", "--creds", services.creds, "--prefix", "signalled"], { program });
  await following.said(/post {4}user 10/);
  following.kill("SIGTERM");
  assert.equal((await following.done).code, 143);
});
