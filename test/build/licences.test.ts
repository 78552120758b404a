/** The licences that are allowed in the executable, and their texts. */
import assert from "node:assert/strict";
import { mkdir, writeFile } from "node:fs/promises";
import { dirname, join } from "node:path";
import { after, before, test } from "node:test";
import { strToU8, zipSync } from "fflate";
import { bundle } from "../../build/bundle.ts";
import rules from "../../build/licences.json" with { type: "json" };
import { checkAllowed, jarPart, licences, npmParts, readJarName } from "../../build/licences.ts";
import { readPins } from "../../build/pins.ts";
import { temporaryFolder } from "../support/support.ts";

let folder: Awaited<ReturnType<typeof temporaryFolder>>;
before(async () => {
  folder = await temporaryFolder();
});
after(() => folder.remove());

const write = async (files: Record<string, string>) => {
  for (const [path, text] of Object.entries(files)) {
    await mkdir(dirname(join(folder.path, path)), { recursive: true });
    await writeFile(join(folder.path, path), text);
  }
};

/** The files of an npm package. */
const npm = (name: string, manifest: object, texts: Record<string, string> = {}) =>
  Object.fromEntries(
    Object.entries({ "package.json": JSON.stringify({ name, version: "1.0.0", ...manifest }), ...texts }).map(
      ([file, text]) => [`node_modules/${name}/${file}`, text],
    ),
  );

test("a package without an allowed licence is refused by name", async () => {
  await write({
    ...npm("good", { license: "MIT" }, { LICENSE: "Good's terms" }),
    ...npm("bad", { license: "AGPL-3.0-only" }, { LICENSE: "Bad's terms" }),
    ...npm("silent", {}, { LICENSE: "Whose?" }),
  });
  const files = ["good", "bad", "silent"].map((name) => `node_modules/${name}/index.js`);
  const parts = npmParts(folder.path, ["main.ts", ...files]);
  assert.throws(() => checkAllowed(parts, rules.allowed.program), {
    message: /^Cannot put into the executable.*:\n {2}bad 1\.0\.0: AGPL-3\.0-only\n {2}silent 1\.0\.0: none$/s,
  });
  assert.doesNotThrow(() => checkAllowed(npmParts(folder.path, files.slice(0, 1)), rules.allowed.program));
});

test("one licence of an OR must be allowed, both of an AND", () => {
  const isAllowed = (licence: string) => {
    try {
      checkAllowed([{ name: "x", version: "1", licence, texts: ["x"] }], ["MIT", "ISC"]);
      return true;
    } catch {
      return false;
    }
  };
  const told = ["MIT OR GPL-3.0-only", "(MIT OR GPL-3.0-only)", "MIT AND ISC", "MIT AND GPL-3.0-only", "GPL-3.0-only"];
  assert.deepEqual(told.map(isAllowed), [true, true, true, false, false]);
});

test("the GPL is allowed in programs that are started, not in the program itself", () => {
  const parts = [{ name: "MariaDB", version: "1", licence: "GPL-2.0-only", texts: ["x"] }];
  checkAllowed(parts, rules.allowed.services);
  assert.throws(() => checkAllowed(parts, rules.allowed.program), /MariaDB 1: GPL-2.0-only/);
});

test("a package contributes its licence, its notice and those of its native library, or is refused", async () => {
  const native = { license: "MIT", os: ["linux"], cpu: ["x64"] };
  const opened = { "opener-linux-x64": "1", "opener-musl": "1" };
  await write({
    ...npm("opener", { license: "MIT", optionalDependencies: opened }, { LICENSE: "Terms", NOTICE: "Notice" }),
    ...npm("opener-linux-x64", native),
    ...npm("opener-musl", { ...native, libc: ["musl"] }),
    ...npm("bare", { license: "MIT" }),
  });
  const parts = npmParts(folder.path, ["node_modules/opener/a.js", "node_modules/opener-linux-x64/x.node"]);
  assert.deepEqual(
    parts.map(({ name, texts }) => [name, texts]),
    [
      ["opener", ["Terms", "Notice"]],
      ["opener-linux-x64", ["Terms", "Notice"]],
    ],
  );
  assert.throws(() => npmParts(folder.path, ["node_modules/bare/a.js"]), /Cannot find a licence text in "bare" 1.0.0/);
});

test("a jar contributes its texts, or those of licences.json; an unlisted jar is refused", () => {
  const jar = (files: Record<string, string>) =>
    zipSync(Object.fromEntries(Object.entries(files).map(([name, text]) => [name, strToU8(text)])));
  const classes = { "a/License.class": "x" };
  const withTexts = jar({ ...classes, "META-INF/LICENSE.txt": "Terms", "META-INF/NOTICE": "Notice" });
  assert.deepEqual(jarPart("log4j-api-2.25.4.jar", withTexts).texts, ["Terms", "Notice"]);
  const [text, ofLibrary] = jarPart("zstd-jni-1.5.6-10.jar", jar({ "a.class": "x" })).texts;
  assert.match(text ?? "", /Luben Karavelov.*Redistribution and use/s);
  assert.match(ofLibrary ?? "", /Meta Platforms.*Neither the name/s);
  assert.throws(() => jarPart("unknown-1.0.jar", withTexts), /Cannot find the licence of "unknown-1.0.jar"/);
  assert.throws(() => jarPart("log4j-api-2.25.4.jar", jar({ "a.class": "x" })), /Cannot find a licence text in "log4j/);
});

test("every pinned jar has an allowed licence", () => {
  const jars = Object.keys(readPins().kafka.files).map((file) => readJarName(file.replace("libs/", "")));
  checkAllowed(
    jars.map((jar) => ({ ...jar, texts: ["x"] })),
    rules.allowed.services,
  );
  assert.deepEqual(
    jars.find(({ name }) => name === "zstd-jni"),
    { name: "zstd-jni", version: "1.5.6-10", licence: "BSD-2-Clause AND BSD-3-Clause" },
  );
});

test("everything that is bundled may be redistributed, and its texts are included", async () => {
  await write({ "node/LICENSE": "Node's terms" });
  const { inputs } = await bundle("executable");
  for (const name of ["kafkajs", "mysql2", "echarts", "fastify", "@duckdb/node-api", "snappy"])
    assert.ok(
      inputs.some((path) => path.startsWith(`node_modules/${name}/`)),
      name,
    );
  const text = await licences({ node: join(folder.path, "node"), inputs });
  for (const expected of [
    "Node's terms",
    "This product includes software developed at\nThe Apache Software Foundation", // echarts' NOTICE
    "Copyright (c) 2017, Baidu Inc.", // zrender, inside echarts
    "Stichting DuckDB Foundation",
    "https://github.com/duckdb/duckdb/tree/v1.", // the parts of libduckdb.so
    "Natural Earth",
    "@node-rs/crc32-linux-x64-gnu",
  ])
    assert.ok(text.includes(expected), expected);
  assert.doesNotMatch(text, /^ {2}(esbuild|tsx|typescript|fflate) /m);
});
