/**
 * Checks everything that the program needs. It starts nothing and changes nothing.
 *
 * @module
 */

import { existsSync } from "node:fs";
import { statfs } from "node:fs/promises";
import { connect as connectSocket, createServer } from "node:net";
import { dirname } from "node:path";
import { byteCount } from "../io/text.ts";
import { spawnGuarded } from "../local/processes.ts";
import { programsMissing } from "../local/programs.ts";
import type { ServiceName } from "../local/state.ts";
import { cacheFolder, checkOwner } from "../runtime/cache.ts";
import { isBinary } from "../runtime/program.ts";
import { type Context, type FoundServices, findServicesOf } from "./connect.ts";
import { checkKafka, checkLake, checkMysql, checkTools } from "./doctor_services.ts";
import type { Check, Finding } from "./finding.ts";

/** Free space below which a first run may fail, and below which it will. */
const [wantedBytes, leastBytes] = [3e9, 1e9];

/** Runs all checks in turn; `onFinding` gets each result at once. */
export async function runDoctor(context: Context, onFinding: (finding: Finding) => void): Promise<Finding[]> {
  const findings: Finding[] = [];
  const check: Check = async (name, look) => {
    let found: Omit<Finding, "check">[];
    try {
      found = [await look()].flat();
    } catch (error) {
      context.signal.throwIfAborted();
      found = [{ state: "failed", text: (error as Error).message }];
    }
    for (const one of found) {
      findings.push({ check: name, ...one });
      onFinding(findings.at(-1) as Finding);
    }
  };
  await checkMachine(context, check);
  const settings = await checkSettings(context, check);
  if (settings?.stopped.length) await checkPrograms(context, settings.stopped, check);
  const mysql = settings?.mysql && (await checkMysql(settings.mysql, check)) ? settings.mysql : undefined;
  const kafka = settings?.kafka && (await checkKafka(settings.kafka, check)) ? settings.kafka : undefined;
  await checkLake(context, { ...(mysql && { mysql }), ...(kafka && { kafka }) }, check);
  await checkTools(check);
  return findings;
}

async function checkMachine({ data, port }: Context, check: Check): Promise<void> {
  await check("platform", async () => {
    const { platform, arch } = process;
    if (platform === "win32") return { state: "failed", text: "Windows", remedy: "use WSL 2 (docs/platforms.md)" };
    const isTried = platform === "linux" && arch === "x64";
    return {
      state: isTried ? "ok" : "warned",
      text: `${platform} ${arch}${isTried ? "" : ", tested less: see docs/platforms.md"}`,
    };
  });
  await check("Node", async () => {
    const text = `${process.versions.node}${isBinary ? ", inside the executable" : ""}`;
    const isOld = Number.parseInt(process.versions.node, 10) < 20;
    return isOld ? { state: "failed", text, remedy: "install Node 20 or newer" } : { state: "ok", text };
  });
  for (const [name, folderOf] of [
    ["disk", () => data],
    ["cache", cacheFolder],
  ] as const) {
    await check(name, async () => {
      const folder = folderOf();
      const there = nearest(folder);
      const { bavail, bsize } = await statfs(there);
      if (name === "cache" && there === folder) checkOwner(folder);
      const text = `${byteCount(bavail * bsize)} free for "${folder}"`;
      if (bavail * bsize >= wantedBytes) return { state: "ok", text };
      const remedy =
        name === "disk"
          ? "free some space, or choose another folder with --data"
          : "free some space, or set XDG_CACHE_HOME";
      return { state: bavail * bsize < leastBytes ? "failed" : "warned", text, remedy };
    });
  }
  await check("ports", async () => {
    await listenOn(0);
    const isTaken = await listenOn(port).then(
      () => false,
      () => true,
    );
    const text = `local ports can be opened; port ${port} of serve is ${isTaken ? "in use" : "free"}`;
    return isTaken ? { state: "warned", text, remedy: "choose another with serve --port N" } : { state: "ok", text };
  });
}

/** The folder, or the nearest one above it that exists. */
const nearest = (folder: string): string => (existsSync(folder) ? folder : nearest(dirname(folder)));

const listenOn = (port: number) =>
  new Promise<void>((resolve, reject) => {
    const server = createServer().once("error", reject);
    server.listen(port, "127.0.0.1", () => server.close(() => resolve()));
  });

async function checkSettings(context: Context, check: Check): Promise<FoundServices | undefined> {
  let found: FoundServices | undefined;
  await check("credentials", async () => {
    found = await findServicesOf(context);
    const { mysql, kafka, from, warnings } = found.creds ?? { from: "", warnings: [] };
    if (!found.creds) return { state: "ok", text: "none: the program uses its private services" };
    if (warnings.length > 0) return warnings.map((text) => ({ state: "warned", text }) as const);
    const parts = [
      ...(mysql ? [`MySQL at ${mysql.host}:${mysql.port}`] : []),
      ...(kafka ? [`Kafka at ${kafka.brokers.join(", ")}`] : []),
    ];
    return { state: "ok", text: `${from}: ${parts.join(", ")}` };
  });
  return found;
}

async function checkPrograms({ signal }: Context, services: ServiceName[], check: Check): Promise<void> {
  await check("private services", async () => {
    const { missing, toDownload, javaVersion } = await programsMissing(services, {
      say: () => {},
      spawn: spawnGuarded,
      signal,
    });
    if (missing.length > 0) {
      const remedy =
        "on Debian or Ubuntu: apt-get install openjdk-17-jre-headless maven; or use the complete executable (npm run binary -- --services); or name your own services in db_creds.yaml";
      return missing.map((text) => ({ state: "failed", text, remedy }) as const);
    }
    const java = javaVersion ? `Java ${javaVersion}; ` : "";
    const text = `${java}the next command starts them`;
    if (toDownload.length === 0) return { state: "ok", text };
    const from = await reaches("repo.maven.apache.org");
    const loads = `${toDownload.join(" and ")} will be downloaded from Maven Central`;
    if (from) return { state: "ok", text: `${text}; ${loads}` };
    const remedy = "allow the connection, configure a mirror in ~/.m2/settings.xml, or set MARIADB_HOME and KAFKA_HOME";
    return { state: "warned", text: `${loads}, but it cannot be reached directly`, remedy };
  });
}

const reaches = (host: string) =>
  new Promise<boolean>((resolve) => {
    const socket = connectSocket({ host, port: 443, timeout: 3_000 });
    const end = (reached: boolean) => {
      socket.destroy();
      resolve(reached);
    };
    socket
      .once("connect", () => end(true))
      .once("timeout", () => end(false))
      .once("error", () => end(false));
  });
