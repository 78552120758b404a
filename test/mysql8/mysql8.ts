/**
 * The tests of the binary log, and faults while it is followed, on MySQL 8.0 instead of MariaDB: `npm run test:mysql8`.
 *
 * Maven downloads the server (34 MB, kept in the user's cache), and `apt-get download` a library that it needs and Debian
 * no longer installs; nothing is installed. If they cannot be downloaded, it says so and exits with 0.
 *
 * @module
 */

import { spawnSync } from "node:child_process";
import { existsSync, mkdirSync, readdirSync, rmSync } from "node:fs";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { beginCached, cacheFolder, finishCached } from "../../runtime/cache.ts";
import { output } from "../support/python.ts";

const file = (path: string) => fileURLToPath(new URL(path, import.meta.url));
const name = "mysql-8.0.15";

/** The folder of the server's files in the cache; creates it if it is missing. */
async function bringMysql(): Promise<string> {
  const home = join(cacheFolder(), name);
  if (existsSync(home)) return home;
  const unfinished = beginCached(name);
  try {
    mkdirSync(unfinished);
    const goal = ["generate-resources", `-Dto=${unfinished}`];
    await output("mvn", ["-q", "--strict-checksums", "-f", file("pom.xml"), ...goal]);
    await output("tar", ["-xzf", join(unfinished, "mysql-Linux-amd64.tar.gz"), "-C", unfinished]);
    rmSync(join(unfinished, "mysql-Linux-amd64.tar.gz"));
    const missing = /libaio[.]so[.]1 => not found/.test(
      String(await output("ldd", [join(unfinished, "bin", "mysqld")])),
    );
    if (missing) await bringLibrary(unfinished);
    finishCached(unfinished, name);
  } finally {
    rmSync(unfinished, { recursive: true, force: true });
  }
  return home;
}

/** Extracts Debian's libaio1 to a folder. */
async function bringLibrary(folder: string): Promise<void> {
  const download = spawnSync("apt-get", ["download", "libaio1"], { cwd: folder, encoding: "utf8" });
  const deb = readdirSync(folder).find((found) => /^libaio1_.*[.]deb$/.test(found));
  if (!deb) throw new Error(`it wants libaio.so.1, and apt-get download libaio1 says: ${download.stderr}`);
  await output("dpkg-deb", ["-x", join(folder, deb), folder]);
}

async function main(): Promise<number> {
  let home: string;
  try {
    const { platform, arch } = process;
    if (platform !== "linux" || arch !== "x64") throw new Error(`there is none for ${platform} ${arch}`);
    home = await bringMysql();
  } catch (error) {
    console.log(`Skipped: there is no MySQL 8.0 to test with: ${(error as Error).message}`);
    return 0;
  }
  const libraries = [join(home, "usr/lib/x86_64-linux-gnu"), process.env.LD_LIBRARY_PATH].filter(Boolean).join(":");
  const env = { ...process.env, MARIADB_HOME: home, LD_LIBRARY_PATH: libraries };
  const run = (script: string, args: string[]): number => {
    const command = ["--import", import.meta.resolve("tsx"), file(script), ...args];
    return spawnSync(process.execPath, command, { stdio: "inherit", env }).status ?? 1;
  };
  const tests = readdirSync(file("../db_conn")).map((test) => file(`../db_conn/${test}`));
  const faults = ["kill-post-follow", "kill-database-follow", "rotate", "truncate-full", "two-followers"];
  return run("../support/run.ts", tests) || run("../faults/faults.ts", ["--short", "--only", faults.join()]);
}

process.exitCode = await main();
