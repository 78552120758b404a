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
/** Names the files of the last bundle: sources, and files of packages. */
const inputsFile = join(cache, "inputs.json");
/** The exit code of `build/prepare.ts` if a source has errors. */
const sourceError = 4;
/** The program's exit code for a wrong command line. */
const usageError = 2;
/** Compiled code is kept for so many commands at most. */
const mostFiles = 40;

/** The name of the bundle of these files: by the content of sources, and by the size and time of packages' files. */
function keyOf({ sources, packages }, read = (path) => fs.readFileSync(join(root, path))) {
  const hash = createHash("sha256").update(`${root}\0${process.version}\0${process.arch}\0`);
  for (const path of sources) hash.update(`${path}\0`).update(digestOf(read(path)));
  for (const path of packages) {
    const { size, mtimeMs } = fs.statSync(join(root, path));
    hash.update(`${path}\0${size} ${mtimeMs}\0`);
  }
  for (const link of linksIn(root, join(root, "node_modules"))) hash.update(`${link} -> ${fs.realpathSync(link)}\0`);
  return hash.digest("hex").slice(0, 20);
}

/** The symbolic links in folders and in the scopes of packages; pnpm installs each package as one. */
function linksIn(...folders) {
  const found = folders.flatMap((folder) =>
    fs.readdirSync(folder, { withFileTypes: true }).map((entry) => ({ entry, path: join(folder, entry.name) })),
  );
  const links = found.filter(({ entry }) => entry.isSymbolicLink()).map(({ path }) => path);
  const scopes = found.filter(({ entry }) => entry.isDirectory() && entry.name.startsWith("@")).map(({ path }) => path);
  return [...links, ...(scopes.length > 0 ? linksIn(...scopes) : [])];
}

/** The two scripts of the bundle of the sources as they are now, open; nothing if there is no complete one. */
function find() {
  try {
    return open(join(cache, keyOf(JSON.parse(fs.readFileSync(inputsFile, "utf8")))));
  } catch {
    return undefined; // never bundled, a source was deleted, or the bundle is being deleted
  }
}

/** Opens the scripts in a folder; their names tell their sizes. */
function open(folder) {
  const found = {};
  for (const file of fs.readdirSync(folder)) {
    const [, name, size] = /^(main|threads)-(\d+)[.]cjs$/.exec(file) ?? [];
    if (!name) continue;
    const script = { path: join(folder, file), file: fs.openSync(join(folder, file)) };
    if (fs.fstatSync(script.file).size === Number(size)) found[name] = script;
  }
  return found.main && found.threads ? found : undefined;
}

/** Bundles the sources. Returns the scripts; nothing if they cannot be written. Ends the program if a source has errors. */
async function make() {
  const args = ["--import", pathToFileURL(require.resolve("tsx")).href, join(root, "build/prepare.ts")];
  const child = spawn(process.execPath, args, { stdio: ["ignore", "ignore", "inherit"] });
  const [code] = await once(child, "exit");
  if (code === sourceError) process.exit(1);
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
        if (fs.readdirSync(dirname(path)).length > mostFiles) return;
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

/** Reads compiled code behind its digest; nothing if it cannot be read or is damaged, because V8 may crash by it. */
function readChecked(path) {
  try {
    const content = fs.readFileSync(path);
    const code = content.subarray(digestBytes);
    return digestOf(code).equals(content.subarray(0, digestBytes)) ? code : undefined;
  } catch {
    return undefined;
  }
}

const digestBytes = 32;
const digestOf = (bytes) => createHash("sha256").update(bytes).digest();

/** Writes a file so that it is complete or absent, also after a power cut. */
function writeSynced(path, content) {
  const unfinished = `${path}.${process.pid}.${threadId}`;
  try {
    fs.writeFileSync(unfinished, content, { flush: true });
    fs.renameSync(unfinished, path);
  } catch (error) {
    fs.rmSync(unfinished, { force: true });
    throw error;
  }
}

/** Runs the command line. With DEBUG it runs the sources, so that errors name their lines. */
async function start() {
  if (!fs.existsSync(join(root, "node_modules/tsx"))) {
    const { message } = new Error(`The program's packages are missing; run npm ci in "${root}"`);
    process.stderr.write(`Error: ${message}\n`);
    process.exit(1);
  }
  const found = process.env.DEBUG ? undefined : (find() ?? (await make()));
  const [, task = "run"] = /^-*([a-z]+)/.exec(process.argv[2] ?? "") ?? [];
  if (found) return load(found.main, { task, threads: found.threads });
  const { register } = await import("tsx/esm/api");
  register();
  await import("../build/entry.ts");
}

module.exports = { cache, inputsFile, sourceError, keyOf, find, open, make, load, writeSynced, start };
