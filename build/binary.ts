/**
 * Builds one executable that contains Node, the program, its SQL, its pages and its native libraries; with `--services`
 * also Kafka, MariaDB and Java.
 *
 * `npm run binary [-- --services] [-- --target linux-arm64] [-- --level 3] [-- --out FILE]`
 *
 * @module
 */
import { spawnSync } from "node:child_process";
import { chmodSync, copyFileSync, mkdirSync, rmSync, statSync, writeFileSync } from "node:fs";
import { basename, join, relative, resolve } from "node:path";
import { parseArgs } from "node:util";
import packageJson from "../package.json" with { type: "json" };
import { addons, bundle } from "./bundle.ts";
import { licences } from "./licences.ts";
import { writePack } from "./pack.ts";
import { fetchNative, fetchNode, type Target } from "./packages.ts";
import { filesBelow, readPins } from "./pins.ts";
import { collectServices } from "./services.ts";

const root = resolve(import.meta.dirname, "..");
const here = `${process.platform}-${process.arch}` as Target;

/** The native packages of a target: the file in each, and its name in the pack. */
const natives = (target: Target): [name: string, file: string, as: string][] => [
  [`@duckdb/node-bindings-${target}`, "duckdb.node", addons["@duckdb/node-bindings"]],
  [`@duckdb/node-bindings-${target}`, "libduckdb.so", "libduckdb.so"],
  [`@node-rs/crc32-${target}-gnu`, `crc32.${target}-gnu.node`, addons["@node-rs/crc32"]],
  [`@antoniomuso/lz4-napi-${target}-gnu`, `lz4-napi.${target}-gnu.node`, addons["lz4-napi"]],
  [`@napi-rs/snappy-${target}-gnu`, `snappy.${target}-gnu.node`, addons.snappy],
];

interface Options {
  target: Target;
  services: boolean;
  level: number;
  out: string;
}

function readOptions(): Options {
  const { values } = parseArgs({
    options: {
      target: { type: "string", default: here },
      services: { type: "boolean", default: false },
      level: { type: "string", default: "19" },
      out: { type: "string", default: "dist/pinterest-data-pipeline" },
    },
  });
  const { target, services, level, out } = values;
  if (target !== "linux-x64" && target !== "linux-arm64")
    throw new Error(`Cannot build an executable for ${target}: expected --target linux-x64 or linux-arm64`);
  if (services && target !== "linux-x64")
    throw new Error("--services needs --target linux-x64: MariaDB is packaged for no other system");
  return { target, services, level: Number(level), out: resolve(out) };
}

/** Copies a library or program without its debugging information, if `strip` here supports it. */
function strip(from: string, to: string): string {
  copyFileSync(from, to);
  const { status } = spawnSync("strip", ["--strip-unneeded", to], { stdio: "ignore" });
  if (status !== 0) copyFileSync(from, to); // strip is missing, or does not support that processor
  return to;
}

async function make({ target, services, level, out }: Options): Promise<void> {
  const work = `${out}.work`;
  rmSync(work, { recursive: true, force: true });
  mkdirSync(join(work, "packs"), { recursive: true });
  const assets: Record<string, string> = {};
  const say = (line: string) => process.stderr.write(`${line}\n`);

  const { main, threads, inputs } = await bundle("executable");
  writeFileSync(join(work, "main.cjs"), main);
  writeFileSync(join(work, "threads.cjs"), threads);
  assets["threads.cjs"] = join(work, "threads.cjs");
  const own = ["sql", "http/static"].flatMap((folder) =>
    filesBelow(join(root, folder)).map((file) => join(folder, file)),
  );
  for (const name of [...own, "report/page.css", "report/world.json", "local/pom.xml", "db_creds.example.yaml"])
    assets[name] = join(root, name);

  const stripped = natives(target).map(([name, file, as]) => [
    as,
    strip(join(fetchNative(name), file), join(work, as)),
  ]);
  const pack = (name: string, version: string, files: Record<string, string>) => {
    const { bytes, packed } = writePack(files, { name, version, level, to: join(work, "packs") });
    for (const ending of ["json", "zst"]) assets[`packs/${name}.${ending}`] = join(work, "packs", `${name}.${ending}`);
    say(`${name} ${version}: ${megabytes(bytes)}, packed ${megabytes(packed)}`);
  };
  pack("natives", packageJson.version, Object.fromEntries(stripped));
  const brought = services ? await collectServices(join(work, "services")) : [];
  for (const { name, version, folder } of brought)
    pack(name, version, Object.fromEntries(filesBelow(folder).map((file) => [file, join(folder, file)])));
  const text = await licences({ node: fetchNode(target), services: brought, inputs });
  writeFileSync(join(work, "licences.txt"), text);
  assets["licences.txt"] = join(work, "licences.txt");

  await inject({ target, out, work, assets });
  rmSync(work, { recursive: true });
  say(
    `${relative(process.cwd(), out)}: ${megabytes(statSync(out).size)}, Node ${readPins().node.version} for ${target}`,
  );
}

/** Injects the script and the assets into a copy of Node. */
async function inject({
  target,
  out,
  work,
  assets,
}: {
  target: Target;
  out: string;
  work: string;
  assets: Record<string, string>;
}): Promise<void> {
  const config = {
    main: join(work, "main.cjs"),
    output: join(work, "sea.blob"),
    disableExperimentalSEAWarning: true,
    useCodeCache: target === here, // the cache depends on the processor
    assets,
  };
  writeFileSync(join(work, "sea.json"), JSON.stringify(config));
  runQuietly([process.execPath, "--experimental-sea-config", join(work, "sea.json")]);
  rmSync(out, { force: true });
  strip(join(fetchNode(target), "bin/node"), out);
  // Its warning about sections without a name is harmless.
  const postject = join(root, "node_modules/postject/dist/cli.js");
  const fuse = "NODE_SEA_FUSE_fce680ab2cc467b6e072b8b5df1996b2";
  runQuietly([process.execPath, postject, out, "NODE_SEA_BLOB", config.output, "--sentinel-fuse", fuse]);
  chmodSync(out, 0o755);
}

/** Runs a command, and shows its output only if it fails. */
function runQuietly([command = "", ...args]: string[]): void {
  const { status, stdout, stderr } = spawnSync(command, args, { encoding: "utf8" });
  if (status !== 0) throw new Error(`${basename(command)} ${args.join(" ")} failed: ${stdout}${stderr}`);
}

const megabytes = (bytes: number) => `${(bytes / 1e6).toFixed(1)} MB`;

// The blob must be created by the Node version that it is injected into.
const node = join(fetchNode(here), "bin/node");
if (process.version === `v${readPins().node.version}`) await make(readOptions());
else
  process.exitCode =
    spawnSync(node, [import.meta.filename, ...process.argv.slice(2)], { stdio: "inherit" }).status ?? 1;
