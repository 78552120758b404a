/**
 * Finds MariaDB and Kafka: where `MARIADB_HOME` and `KAFKA_HOME` point to, in the executable, or in the per-user cache,
 * which is filled from Maven Central.
 *
 * @module
 */

import { existsSync, readdirSync } from "node:fs";
import { join } from "node:path";
import { brings, packFolder } from "../runtime/packs.ts";
import { cached, download, downloadName } from "./download.ts";
import { outputOf, type Tools } from "./processes.ts";
import type { ServiceName } from "./state.ts";

/** A MariaDB or MySQL server's files. */
export interface MysqlProgram {
  server: string;
  /** The folder of bin, scripts and share. */
  home: string;
  /** The folder of the error messages, and of the SQL that creates the system tables. */
  share: string;
  name: string;
}

/** A Kafka distribution's jars, perhaps with ZooKeeper, and the Java that runs them. */
export interface KafkaProgram {
  java: string;
  classpath: string;
  name: string;
  /** The file for the class data archive of this Java; see {@link quickClasses}. */
  archive?: string;
}

/** Programs that were found. */
export interface Programs {
  mysql?: MysqlProgram;
  kafka?: KafkaProgram;
}

/** The system that the programs run on, in the names of Node. */
export type System = Pick<NodeJS.Process, "platform" | "arch">;

/** The programs of some services. */
interface Found {
  home: { mysql?: Home; kafka?: Home };
  java: string | undefined;
  javaVersion: string | undefined;
  toDownload: ServiceName[];
  /** A line for each missing thing; empty if the services can start. */
  missing: string[];
}

/** Looks for the programs of the services, without downloading any. */
async function locate(services: ServiceName[], tools: Tools, system: System): Promise<Found> {
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
    const what = toDownload.map(downloadName).join(" and ");
    missing.push(`Maven is needed to download ${what}, but "mvn" cannot be run`);
  }
  return { home, java, javaVersion, toDownload, missing };
}

/** Lists what is missing to start services, and what a start would download. Starts and downloads nothing. */
export async function programsMissing(
  services: ServiceName[],
  tools: Tools,
  system: System = process,
): Promise<{ missing: string[]; toDownload: string[]; javaVersion: string | undefined }> {
  const { missing, toDownload, javaVersion } = await locate(services, tools, system);
  return { missing, toDownload: toDownload.map(downloadName), javaVersion };
}

/**
 * Finds the programs of the services, and downloads those that are neither installed nor cached. With ZooKeeper among
 * the services, Kafka is a version that supports it.
 *
 * @throws `Error` that lists everything that is missing
 */
export async function findPrograms(services: ServiceName[], tools: Tools, system: System = process): Promise<Programs> {
  const { home, java, javaVersion, toDownload, missing } = await locate(services, tools, system);
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
 * The folder of a service's files and its source: the user, the complete executable, Maven (which may still have to
 * download it), or the system's package manager.
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

/** Systems other than Linux x86-64 need an installed MariaDB: its places, and the command that installs it. */
const installed = ({ platform }: System) =>
  platform === "darwin"
    ? { homes: ["/opt/homebrew/opt/mariadb", "/usr/local/opt/mariadb"], how: "brew install mariadb" }
    : { homes: ["/usr"], how: "apt-get install mariadb-server-core" };

const isDownloadable = ({ platform, arch }: System) => platform === "linux" && arch === "x64";

/**
 * The folder of a MariaDB that Homebrew (macOS) or the package manager (Linux) has installed. Exported for tests, which
 * replace `has`.
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

/** The message. `isComplete`: an executable exists that includes everything that is missing. */
function cannotRun(missing: string[], { isComplete }: { isComplete: boolean }): string {
  const list = (lines: string[]) => lines.map((line) => `  - ${line}`).join("\n");
  const remedies = [
    "install what is missing (Debian, Ubuntu: apt-get install openjdk-17-jre-headless maven)",
    "set MARIADB_HOME and KAFKA_HOME to installed ones",
    ...(isComplete ? ["use the complete executable, which includes them: npm run binary -- --services"] : []),
    "name your own MySQL and Kafka in db_creds.yaml",
  ];
  return `Cannot start the local services:\n${list(missing)}\nDo one of these, then run doctor to check:\n${list(remedies)}`;
}

function serverIn(home: string): Omit<MysqlProgram, "home"> | undefined {
  const servers = ["bin", "sbin", "libexec", "usr/sbin"].flatMap((folder) =>
    ["mariadbd", "mysqld"].map((file) => join(home, folder, file)),
  );
  const server = servers.find((path) => existsSync(path));
  if (!server) return undefined;
  const shares = ["share/mariadb", "share/mysql", "share", "usr/share/mysql"].map((folder) => join(home, folder));
  const share = shares.find((path) => existsSync(join(path, "english", "errmsg.sys"))) ?? join(home, "share");
  // MariaDB's server may be called mysqld too, but only MariaDB has the SQL of its system tables in this folder.
  const isMariadb =
    existsSync(share) && readdirSync(share).some((file) => /^(mariadb|mysql)_system_tables[.]sql$/.test(file));
  return { server, share, name: isMariadb ? "MariaDB" : "MySQL" };
}

/** The version of the Kafka or the ZooKeeper in a folder. */
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

/** The version of a Java. Java 8 reports 1.8. */
const versionOf = async (java: string) =>
  /version "([^"]+)"/.exec((await outputOf(java, ["-XX:-UsePerfData", "-version"])) ?? "")?.[1];
