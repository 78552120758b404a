/**
 * Where MariaDB and Kafka come from: installed ones that `MARIADB_HOME` and `KAFKA_HOME` name, or Maven Central by way
 * of a per-user cache.
 *
 * @module
 */

import { execFile } from "node:child_process";
import { chmodSync, existsSync, mkdirSync, readdirSync, readFileSync, renameSync, rmSync } from "node:fs";
import { homedir } from "node:os";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { fileURLToPath } from "node:url";
import { stripVTControlCharacters } from "node:util";
import { isAlive } from "../runtime/process.ts";
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

/** What starting a program may need: a way to say, to start processes, and to be stopped. */
export interface Tools {
  say: (line: string) => void;
  spawn: typeof spawnGuarded;
  signal: AbortSignal;
}

const pom = fileURLToPath(new URL("./pom.xml", import.meta.url));
const version = (name: string) => new RegExp(`<${name}.version>(.*)</`).exec(readFileSync(pom, "utf8"))?.[1] ?? "";
const cacheFolder = () => join(process.env.XDG_CACHE_HOME || join(homedir(), ".cache"), "pinterest-data-pipeline");

/** What Maven is to bring: the profile of pom.xml, the property with its version, its name for people, its size in MB. */
const downloads = {
  mysql: { profile: "mariadb", version: "mariadb", name: "MariaDB", size: 149 },
  kafka: { profile: "kafka", version: "kafka", name: "Kafka", size: 44 },
  // The last Kafka that runs by ZooKeeper.
  zookeeper: { profile: "kafka", version: "kafka-zookeeper", name: "Kafka 3.9 with ZooKeeper", size: 46 },
} as const satisfies Record<ServiceName, object>;

const cached = (service: ServiceName) => {
  const { profile, version: property } = downloads[service];
  return join(cacheFolder(), `${profile}-${version(property)}`);
};

/**
 * Finds the programs of the services, downloading what is neither installed nor cached. All that is missing is named
 * at once. Where ZooKeeper is among the services, so is a Kafka that knows it.
 */
export async function findPrograms(services: ServiceName[], tools: Tools): Promise<Programs> {
  const { MARIADB_HOME, KAFKA_HOME, JAVA_HOME } = process.env;
  const missing: string[] = [];
  if (process.platform === "win32") missing.push("They need a Unix shell, which Windows has only inside WSL");
  const toDownload: ServiceName[] = [];
  const java = JAVA_HOME ? join(JAVA_HOME, "bin", "java") : "java";

  if (services.includes("mysql")) {
    if (MARIADB_HOME) {
      if (!serverIn(MARIADB_HOME))
        missing.push(
          `MARIADB_HOME is "${MARIADB_HOME}", but there is no mariadbd or mysqld in its bin, sbin, libexec or usr/sbin`,
        );
    } else if (process.platform !== "linux" || process.arch !== "x64") {
      missing.push(`MariaDB can be downloaded for Linux x86-64 only, but this is ${process.platform} ${process.arch}`);
    } else if (!existsSync(cached("mysql"))) toDownload.push("mysql");
  }
  const broker = services.includes("zookeeper") ? "zookeeper" : services.includes("kafka") ? "kafka" : undefined;
  const javaVersion = broker && (await versionOf(java));
  if (broker) {
    if (javaVersion === undefined) missing.push(`Kafka needs Java 17 or newer, but "${java}" cannot be run`);
    else if (!(Number.parseInt(javaVersion, 10) >= 17))
      missing.push(`Kafka needs Java 17 or newer, but "${java}" is Java ${javaVersion}`);
    if (KAFKA_HOME) {
      const [jars, keeper] = [jarsIn(KAFKA_HOME), jarsIn(KAFKA_HOME, "zookeeper")];
      if (!jars) missing.push(`KAFKA_HOME is "${KAFKA_HOME}", but there is no libs/kafka_*.jar in it`);
      else if (broker === "zookeeper" && !keeper)
        missing.push(
          `KAFKA_HOME is "${KAFKA_HOME}", but its Kafka ${jars} has no ZooKeeper: --zookeeper needs Kafka 3`,
        );
    } else if (!existsSync(cached(broker))) toDownload.push(broker);
  }
  if (toDownload.length > 0 && !(await runs("mvn", ["--version"]))) {
    const what = toDownload.map((service) => downloads[service].name).join(" and ");
    missing.push(`${what} would be downloaded by Maven, but "mvn" cannot be run`);
  }
  if (missing.length > 0) throw new Error(cannotRun(missing));

  if (toDownload.length > 0) await download(toDownload, tools);
  const mysqlHome = MARIADB_HOME || cached("mysql");
  const kafkaHome = KAFKA_HOME || cached(broker ?? "kafka");
  const server = serverIn(mysqlHome);
  return {
    ...(services.includes("mysql") && server && { mysql: { home: mysqlHome, ...server } }),
    ...(broker && {
      kafka: {
        java,
        classpath: join(kafkaHome, "libs", "*"),
        name: `Kafka ${jarsIn(kafkaHome) ?? ""}`,
        ...(!KAFKA_HOME && { archive: join(kafkaHome, `java-${javaVersion}.jsa`) }),
      },
    }),
  };
}

const cannotRun = (missing: string[]) => `Cannot start the local services:
${missing.map((line) => `  - ${line}`).join("\n")}
Install what is missing (Debian, Ubuntu: apt-get install openjdk-17-jre-headless maven), \
or set MARIADB_HOME and KAFKA_HOME to installed ones, \
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

const runs = (command: string, args: string[]) =>
  new Promise<string | undefined>((resolve) => {
    execFile(command, args, { timeout: 20_000 }, (error, stdout, stderr) =>
      resolve(error ? undefined : stdout + stderr),
    );
  });

/** The version of a Java; Java 8 calls itself 1.8. */
const versionOf = async (java: string) => /version "([^"]+)"/.exec((await runs(java, ["-version"])) ?? "")?.[1];

async function download(services: ServiceName[], tools: Tools) {
  const parts = services.map((service) => `${downloads[service].name} (${downloads[service].size} MB)`);
  tools.say(`Downloading ${parts.join(" and ")} from Maven Central, once, into "${cacheFolder()}"`);
  mkdirSync(cacheFolder(), { recursive: true });
  for (const service of services) await fill(service, tools);
}

/** Fills one folder of the cache. Two programs may do so at once: the first to finish wins, and none sees half of it. */
async function fill(service: ServiceName, { say, spawn, signal }: Tools) {
  const { profile, version: property, name, size } = downloads[service];
  for (const file of readdirSync(cacheFolder())) {
    const pid = /^[.](?:kafka|mariadb)[.](\d+)$/.exec(file)?.[1];
    if (pid && !isAlive(Number(pid))) rmSync(join(cacheFolder(), file), { recursive: true, force: true });
  }
  const unfinished = join(cacheFolder(), `.${profile}.${process.pid}`);
  const chosen = ["-P", profile, `-D${profile}.version=${version(property)}`];
  // By itself Maven accepts a wrong checksum with a warning.
  const args = ["-U", "--strict-checksums", "-f", pom, ...chosen, "-Dstyle.color=never", `-Dto=${unfinished}`];
  const maven = spawn("mvn", [...args, "generate-resources"], { output: "pipe", cwd: cacheFolder() });
  try {
    const failure = await follow(maven, signal, (done) =>
      say(`Downloading ${name}: ${Math.min(done, size)} of ${size} MB`),
    );
    signal.throwIfAborted();
    if (failure) throw new Error(`Cannot download ${name} by Maven: ${failure}\n${offline}`);
    if (service === "mysql")
      for (const file of readdirSync(join(unfinished, "bin"))) chmodSync(join(unfinished, "bin", file), 0o755);
    try {
      renameSync(unfinished, cached(service));
    } catch (error) {
      if (!existsSync(cached(service))) throw error; // else another program was faster
    }
  } finally {
    await maven.stop();
    rmSync(unfinished, { recursive: true, force: true });
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
