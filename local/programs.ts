/**
 * Where MariaDB and Kafka come from: installed ones that `MARIADB_HOME` and `KAFKA_HOME` name, or Maven Central by way
 * of a per-user cache.
 *
 * @module
 */

import { execFile } from "node:child_process";
import { chmodSync, existsSync, readdirSync, renameSync, rmSync, writeFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { stripVTControlCharacters } from "node:util";
import { beginCached, cacheFolder, finishCached } from "../runtime/cache.ts";
import { brings, packFolder } from "../runtime/packs.ts";
import { ownText } from "../runtime/program.ts";
import type { Guarded, spawnGuarded } from "./processes.ts";
import type { ServiceName } from "./state.ts";

/** A MariaDB or MySQL server's files. */
export interface MysqlProgram {
  server: string;
  /** The folder of bin, scripts and share. */
  home: string;
  /** The folder of the SQL that makes the system tables, and of the messages. */
  share: string;
  name: string;
}

/** A Kafka distribution's jars, ZooKeeper's perhaps among them, and the Java to run them. */
export interface KafkaProgram {
  java: string;
  classpath: string;
  name: string;
  /** Where classes may be kept as this Java loads them quickly; see {@link startKafka}. */
  archive?: string;
}

/** The programs that were found. */
export interface Programs {
  mysql?: MysqlProgram;
  kafka?: KafkaProgram;
}

/** The system that the programs are for, as Node names it. */
export type System = Pick<NodeJS.Process, "platform" | "arch">;

/** What starting a program may need: a way to say, to start processes, and to be stopped. */
export interface Tools {
  say: (line: string) => void;
  spawn: typeof spawnGuarded;
  signal: AbortSignal;
}

const pom = () => ownText("local/pom.xml");

/** The version of a program that local/pom.xml names. */
export const pinnedVersion = (name: string): string => new RegExp(`<${name}.version>(.*)</`).exec(pom())?.[1] ?? "";

/** What Maven is to bring: the profile of pom.xml, the property with its version, its name for people, its size in MB. */
const downloads = {
  mysql: { profile: "mariadb", version: "mariadb", name: "MariaDB", size: 149 },
  kafka: { profile: "kafka", version: "kafka", name: "Kafka", size: 44 },
  // The last Kafka that runs by ZooKeeper.
  zookeeper: { profile: "kafka", version: "kafka-zookeeper", name: "Kafka 3.9 with ZooKeeper", size: 46 },
} as const satisfies Record<ServiceName, object>;

const cachedName = (service: ServiceName) => {
  const { profile, version: property } = downloads[service];
  return `${profile}-${pinnedVersion(property)}`;
};
const cached = (service: ServiceName) => join(cacheFolder(), cachedName(service));

/** What was found of the programs of some services. */
interface Found {
  home: { mysql?: Home; kafka?: Home };
  java: string | undefined;
  javaVersion: string | undefined;
  toDownload: ServiceName[];
  /** What is missing, a line each; nothing where the services can be started. */
  missing: string[];
}

/** Looks for the programs of the services, without downloading any. */
async function look(services: ServiceName[], tools: Tools, system: System): Promise<Found> {
  const broker = services.includes("zookeeper") ? "zookeeper" : services.includes("kafka") ? "kafka" : undefined;
  const home = {
    ...(services.includes("mysql") && { mysql: homeOf("mysql", tools, system) }),
    ...(broker && { kafka: homeOf(broker, tools, system) }),
  };
  const java = broker && findJava(tools);
  const javaVersion = java && (await versionOf(java));
  const missing = [
    ...(system.platform === "win32" ? ["They need a Unix shell, which Windows has only inside WSL"] : []),
    ...(home.mysql ? missingOfMysql(home.mysql, system) : []),
    ...(home.kafka && java
      ? missingOfKafka(home.kafka, { java, javaVersion, needsKeeper: broker === "zookeeper" })
      : []),
  ];
  const toDownload = Object.values(home).flatMap((one) =>
    one.from === "download" && !existsSync(one.folder) ? [one.service] : [],
  );
  if (toDownload.length > 0 && !(await outputOf("mvn", ["--version"]))) {
    const what = toDownload.map((service) => downloads[service].name).join(" and ");
    missing.push(`${what} would be downloaded by Maven, but "mvn" cannot be run`);
  }
  return { home, java, javaVersion, toDownload, missing };
}

/** Says what is missing to start services, a line each, and what would be downloaded; for who only asks. */
export async function programsMissing(
  services: ServiceName[],
  tools: Tools,
  system: System = process,
): Promise<{ missing: string[]; toDownload: string[]; javaVersion: string | undefined }> {
  const { missing, toDownload, javaVersion } = await look(services, tools, system);
  const names = toDownload.map((service) => `${downloads[service].name} (${downloads[service].size} MB)`);
  return { missing, toDownload: names, javaVersion };
}

/**
 * Finds the programs of the services, downloading what is neither installed nor cached. All that is missing is named
 * at once. Where ZooKeeper is among the services, so is a Kafka that knows it.
 */
export async function findPrograms(services: ServiceName[], tools: Tools, system: System = process): Promise<Programs> {
  const { home, java, javaVersion, toDownload, missing } = await look(services, tools, system);
  const isComplete = isDownloadable(system) && !services.includes("zookeeper");
  if (missing.length > 0) throw new Error(cannotRun(missing, { isComplete }));

  if (toDownload.length > 0) await download(toDownload, tools);
  const server = home.mysql && serverIn(home.mysql.folder);
  return {
    ...(home.mysql && server && { mysql: { home: home.mysql.folder, ...server } }),
    ...(home.kafka &&
      java && {
        kafka: {
          java,
          classpath: join(home.kafka.folder, "libs", "*"),
          name: `Kafka ${jarsIn(home.kafka.folder) ?? ""}`,
          ...(home.kafka.from !== "user" && { archive: join(home.kafka.folder, `java-${javaVersion}.jsa`) }),
        },
      }),
  };
}

/**
 * The folder of a service's files, and who brought it: the user, the complete executable, Maven, perhaps later, or
 * another installer.
 */
interface Home {
  service: ServiceName;
  folder: string;
  from: "user" | "executable" | "download" | "system";
}

function homeOf(service: ServiceName, { say }: Tools, system: System): Home {
  const named = service === "mysql" ? process.env.MARIADB_HOME : process.env.KAFKA_HOME;
  if (named) return { service, folder: named, from: "user" };
  const pack = ({ mysql: "mariadb", kafka: "kafka", zookeeper: undefined } as const)[service];
  if (pack && brings(pack)) return { service, folder: packFolder(pack, say), from: "executable" };
  if (service === "mysql" && !isDownloadable(system))
    return { service, folder: installedMysql(system) ?? "", from: "system" };
  return { service, folder: cached(service), from: "download" };
}

function findJava({ say }: Tools): string {
  const home = process.env.JAVA_HOME || (brings("java") ? packFolder("java", say) : undefined);
  return home ? join(home, "bin", "java") : "java";
}

function missingOfMysql({ folder, from }: Home, system: System): string[] {
  if (from === "user" && !serverIn(folder))
    return [`MARIADB_HOME is "${folder}", but there is no mariadbd or mysqld in its bin, sbin, libexec or usr/sbin`];
  return folder ? [] : [withoutMysql(system)];
}

function missingOfKafka(
  { folder, from }: Home,
  { java, javaVersion, needsKeeper }: { java: string; javaVersion: string | undefined; needsKeeper: boolean },
): string[] {
  const missing: string[] = [];
  if (javaVersion === undefined) missing.push(`Kafka needs Java 17 or newer, but "${java}" cannot be run`);
  else if (!(Number.parseInt(javaVersion, 10) >= 17))
    missing.push(`Kafka needs Java 17 or newer, but "${java}" is Java ${javaVersion}`);
  if (from !== "user") return missing;
  const jars = jarsIn(folder);
  if (!jars) missing.push(`KAFKA_HOME is "${folder}", but there is no libs/kafka_*.jar in it`);
  else if (needsKeeper && !jarsIn(folder, "zookeeper"))
    missing.push(`KAFKA_HOME is "${folder}", but its Kafka ${jars} has no ZooKeeper: --zookeeper needs Kafka 3`);
  return missing;
}

/** What is not Linux x86-64 has its MariaDB installed: where, and by what. */
const installed = ({ platform }: System) =>
  platform === "darwin"
    ? { homes: ["/opt/homebrew/opt/mariadb", "/usr/local/opt/mariadb"], how: "brew install mariadb" }
    : { homes: ["/usr"], how: "apt-get install mariadb-server-core" };

const isDownloadable = ({ platform, arch }: System) => platform === "linux" && arch === "x64";

/**
 * Where another installer has put MariaDB: on macOS Homebrew, on Linux the system's. Exported for tests, as is `has`.
 */
export const installedMysql = (
  system: System,
  has = (home: string): boolean => serverIn(home) !== undefined,
): string | undefined => installed(system).homes.find(has);

const withoutMysql = (system: System) => {
  if (system.platform === "win32") return "MariaDB cannot be downloaded for Windows";
  const { homes, how } = installed(system);
  const places = homes.map((home) => `"${home}"`).join(" or ");
  return `MariaDB can be downloaded for Linux x86-64 only; this is ${system.platform} ${system.arch}, and there is none in ${places}: ${how}, or set MARIADB_HOME`;
};

/** The message; `isComplete` where there is an executable that brings all that is missing. */
const cannotRun = (missing: string[], { isComplete }: { isComplete: boolean }) => `Cannot start the local services:
${missing.map((line) => `  - ${line}`).join("\n")}
Install what is missing (Debian, Ubuntu: apt-get install openjdk-17-jre-headless maven), \
or set MARIADB_HOME and KAFKA_HOME to installed ones, \
${isComplete ? "or use the complete executable, which brings them: npm run binary -- --services, " : ""}\
or name a MySQL and a Kafka of your own in db_creds.yaml`;

function serverIn(home: string): Omit<MysqlProgram, "home"> | undefined {
  const servers = ["bin", "sbin", "libexec", "usr/sbin"].flatMap((folder) =>
    ["mariadbd", "mysqld"].map((file) => join(home, folder, file)),
  );
  const server = servers.find((path) => existsSync(path));
  if (!server) return undefined;
  const shares = ["share/mariadb", "share/mysql", "share", "usr/share/mysql"].map((folder) => join(home, folder));
  const share = shares.find((path) => existsSync(join(path, "english", "errmsg.sys"))) ?? join(home, "share");
  // MariaDB's server may be called mysqld too, but only MariaDB has the SQL of its system tables lie there.
  const isMariadb =
    existsSync(share) && readdirSync(share).some((file) => /^(mariadb|mysql)_system_tables[.]sql$/.test(file));
  return { server, share, name: isMariadb ? "MariaDB" : "MySQL" };
}

/** The version of the Kafka in a folder, or of its ZooKeeper. */
function jarsIn(home: string, name = "kafka_[\\d.]+"): string | undefined {
  try {
    const jar = new RegExp(`^${name}-([\\d.]+\\d)\\.jar$`);
    return readdirSync(join(home, "libs"))
      .map((file) => jar.exec(file)?.[1])
      .find(Boolean);
  } catch {
    return undefined;
  }
}

/** What a command prints, to either stream; `undefined` where it fails or takes too long, ms. */
export const outputOf = (command: string, args: string[], timeout = 20_000): Promise<string | undefined> =>
  new Promise<string | undefined>((resolve) => {
    execFile(command, args, { timeout }, (error, stdout, stderr) => resolve(error ? undefined : stdout + stderr));
  });

/** The version of a Java; Java 8 calls itself 1.8. */
const versionOf = async (java: string) =>
  /version "([^"]+)"/.exec((await outputOf(java, ["-XX:-UsePerfData", "-version"])) ?? "")?.[1];

async function download(services: ServiceName[], tools: Tools) {
  const parts = services.map((service) => `${downloads[service].name} (${downloads[service].size} MB)`);
  tools.say(`Downloading ${parts.join(" and ")} from Maven Central, once, into "${cacheFolder()}"`);
  for (const service of services) await fill(service, tools);
}

/** Fills one folder of the cache. */
async function fill(service: ServiceName, tools: Tools) {
  const unfinished = beginCached(cachedName(service));
  try {
    await bring(service, unfinished, tools);
    if (service === "mysql") await strip(join(unfinished, "bin", "mariadbd"));
    finishCached(unfinished, cachedName(service));
  } finally {
    rmSync(unfinished, { recursive: true, force: true });
  }
}

/**
 * Takes the debugging information out of a program, nine tenths of MariaDB's; where `strip` fails or is not there, the
 * program stays as it is.
 */
export async function strip(program: string): Promise<void> {
  const stripped = `${program}.stripped`;
  if ((await outputOf("strip", ["-o", stripped, program])) !== undefined) renameSync(stripped, program);
  rmSync(stripped, { force: true });
}

/**
 * Has Maven bring a service's files into a folder, which it makes: Kafka's jars into `libs`, MariaDB's `bin`, `scripts`
 * and `share`.
 *
 * @throws `Error` with Maven's reason, and what to do
 */
export async function bring(service: ServiceName, folder: string, { say, spawn, signal }: Tools): Promise<void> {
  const { profile, version: property, name, size } = downloads[service];
  const pomFile = `${folder}.xml`;
  writeFileSync(pomFile, pom());
  const chosen = ["-P", profile, `-D${profile}.version=${pinnedVersion(property)}`];
  // By itself Maven accepts a wrong checksum with a warning.
  const args = ["-U", "--strict-checksums", "-f", pomFile, ...chosen, "-Dstyle.color=never", `-Dto=${folder}`];
  const maven = spawn("mvn", [...args, "generate-resources"], { output: "pipe", cwd: dirname(folder) });
  try {
    const failure = await follow(maven, signal, (done) =>
      say(`Downloading ${name}: ${Math.min(done, size)} of ${size} MB`),
    );
    signal.throwIfAborted();
    if (failure) throw new Error(`Cannot download ${name} by Maven: ${failure}\n${offline}`);
    if (service === "mysql")
      for (const file of readdirSync(join(folder, "bin"))) chmodSync(join(folder, "bin", file), 0o755);
  } finally {
    await maven.stop();
    rmSync(pomFile, { force: true });
  }
}

const offline =
  "Look at the connection or Maven's settings.xml (proxy, mirror) and run it again, or set MARIADB_HOME and KAFKA_HOME to installed ones";

/** Reads Maven's talk until it ends; tells progress in MB every two seconds; gives the reason if it failed. */
async function follow(
  maven: Guarded,
  signal: AbortSignal,
  progress: (done: number) => void,
): Promise<string | undefined> {
  const inMB = { kB: 0.001, MB: 1 } as const;
  const errors: string[] = [];
  let finished = 0;
  let current = 0;
  let told = Date.now();
  let heard = Date.now();
  let rest = "";
  const read = (chunk: Buffer) => {
    heard = Date.now();
    const lines = (rest + chunk.toString("utf8")).split(/[\r\n]+/);
    rest = lines.pop() ?? "";
    for (const line of lines) {
      const done = /^Downloaded .*[(]([\d.]+) (kB|MB)/.exec(line);
      if (done) finished += Number(done[1]) * inMB[done[2] as "kB" | "MB"];
      if (done) current = 0;
      if (line.startsWith("Progress"))
        current = [...line.matchAll(/([\d.]+)(?:[/][\d.]+)? (kB|MB)/g)]
          .map(([, amount, unit]) => Number(amount) * inMB[unit as "kB" | "MB"])
          .reduce((a, b) => a + b, 0);
      if (line.startsWith("[ERROR]") && line.length > 9) errors.push(line.slice(8).replace(/ -> \[Help.*/, ""));
    }
    if (Date.now() - told < 2_000) return;
    told = Date.now();
    progress(Math.round(finished + current));
  };
  maven.child.stdout?.on("data", read);
  const complaints: string[] = [];
  maven.child.stderr?.on("data", (chunk: Buffer) => {
    heard = Date.now();
    complaints.push(stripVTControlCharacters(chunk.toString("utf8")).trim());
  });

  let how: string | undefined;
  void maven.ended.then((end) => {
    how = end;
  });
  while (how === undefined && !signal.aborted) {
    if (Date.now() - heard > 120_000) return "it said nothing for 2 minutes";
    await sleep(50);
  }
  return how === "exit code 0" ? undefined : (errors[0] || complaints.join(" ") || how)?.slice(0, 800);
}
