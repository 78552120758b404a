/**
 * Starts the program from a bundle of its sources and packages, which loads several times faster than their files.
 *
 * `build/prepare.ts` writes the bundle to `node_modules/.cache`, in a folder named by a hash of its sources, so an edited
 * source is bundled again at the next start. The code that V8 compiles is kept beside it, for each command.
 */
const { spawn } = require("node:child_process");
const { createHash } = require("node:crypto");
const { once } = require("node:events");
const fs = require("node:fs");
const { createRequire } = require("node:module");
const { dirname, join } = require("node:path");
const { pathToFileURL } = require("node:url");
const vm = require("node:vm");
const { threadId } = require("node:worker_threads");

const root = dirname(__dirname);
const cache = join(root, "node_modules/.cache/pinterest-data-pipeline");
/** Names the sources of the last bundle. */
const inputsFile = join(cache, "inputs.json");
/** The exit code of `build/prepare.ts` if it cannot write to the cache. */
const cannotWrite = 3;
/** The program's exit code for a wrong command line. */
const usageError = 2;

/** The name of the bundle of these sources. */
function keyOf(inputs, read = (path) => fs.readFileSync(join(root, path))) {
  const hash = createHash("sha256").update(`${root}\0${process.version}\0${process.arch}\0`);
  for (const path of inputs) hash.update(`${path}\0`).update(digestOf(read(path)));
  return hash.digest("hex").slice(0, 20);
}

/** The folder of the bundle of the sources as they are now, if there is one. */
function find() {
  try {
    const folder = join(cache, keyOf(JSON.parse(fs.readFileSync(inputsFile, "utf8"))));
    return fs.existsSync(folder) ? folder : undefined;
  } catch {
    return undefined; // never bundled, or a source was deleted
  }
}

/** Bundles the sources. Returns the folder; nothing if it cannot be written. Ends the program if a source has errors. */
async function make() {
  const args = ["--import", pathToFileURL(require.resolve("tsx")).href, join(root, "build/prepare.ts")];
  const child = spawn(process.execPath, args, { stdio: ["ignore", "ignore", "inherit"] });
  const [code] = await once(child, "exit");
  if (code !== 0 && code !== cannotWrite) process.exit(1);
  return code === 0 ? find() : undefined;
}

/**
 * Runs a script with the code that V8 compiled for this task in an earlier run; without it, keeps what this run compiles.
 * `threads` is the script of the threads, open, so that a long run can still start one after its bundle was deleted.
 */
function load({ path, file }, { task, threads }) {
  const compiled = `${path}.${task}.v8`;
  const cachedData = readChecked(compiled);
  const text = `(function (exports, require, module, __filename, __dirname, threads) {${readOpen(file)}\n})`;
  const script = new vm.Script(text, { filename: path, ...(cachedData && { cachedData }) });
  if (!cachedData || script.cachedDataRejected)
    process.once("exit", (code) => {
      if (code === usageError) return; // the task may be any word
      try {
        const data = script.createCachedData();
        writeSynced(compiled, Buffer.concat([digestOf(data), data]));
      } catch {
        // only slower
      }
    });
  const module = { exports: {} };
  script.runInThisContext()(module.exports, createRequire(path), module, path, dirname(path), threads);
}

/** Reads an open script, which is in ASCII. */
function readOpen(file) {
  const bytes = Buffer.allocUnsafe(fs.fstatSync(file).size);
  fs.readSync(file, bytes, 0, bytes.length, 0);
  return bytes.latin1Slice();
}

/** Reads compiled code behind its digest; nothing if it is missing or damaged, because V8 does not check and may crash. */
function readChecked(path) {
  if (!fs.existsSync(path)) return undefined;
  const content = fs.readFileSync(path);
  const code = content.subarray(digestBytes);
  return digestOf(code).equals(content.subarray(0, digestBytes)) ? code : undefined;
}

const digestBytes = 32;
const digestOf = (bytes) => createHash("sha256").update(bytes).digest();

/** Opens a script of a bundle. */
function open(folder, name) {
  const path = join(folder, name);
  return { path, file: fs.openSync(path) };
}

/** Writes a file so that it is complete or absent, also after a power cut. */
function writeSynced(path, content) {
  const unfinished = `${path}.${process.pid}.${threadId}`;
  fs.writeFileSync(unfinished, content, { flush: true });
  fs.renameSync(unfinished, path);
}

/** Runs the command line. With DEBUG it runs the sources, so that errors name their lines. */
async function start() {
  if (!fs.existsSync(join(root, "node_modules/tsx"))) {
    const { message } = new Error(`The program's packages are missing; run npm ci in "${root}"`);
    process.stderr.write(`Error: ${message}\n`);
    process.exit(1);
  }
  const folder = process.env.DEBUG ? undefined : (find() ?? (await make()));
  const [, task = "run"] = /^-*([a-z]+)/.exec(process.argv[2] ?? "") ?? [];
  if (folder) return load(open(folder, "main.cjs"), { task, threads: open(folder, "threads.cjs") });
  const { register } = await import("tsx/esm/api");
  register();
  await import("../build/entry.ts");
}

module.exports = { cache, inputsFile, cannotWrite, keyOf, find, make, open, load, writeSynced, start };
