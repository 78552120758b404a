/** SIGTERM to `npx` or `npm start`, which run the program in a shell. */
import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { readdir, readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { after, before, test } from "node:test";
import { setTimeout as sleep } from "node:timers/promises";
import { npmShell, readProcess } from "../../cli/npm_shell.ts";
import { runs, start, startSources, temporaryFolder, untilGone } from "../support/support.ts";

startSources();
const root = new URL("../../", import.meta.url).pathname;

let folder: Awaited<ReturnType<typeof temporaryFolder>>;
let serve: string[];
before(async () => {
  folder = await temporaryFolder();
  const creds = join(folder.path, "away.yaml");
  const text = "HOST: 127.0.0.1\nPORT: 1\nUSER: u\nPASSWORD: p\nKAFKA:\n  BROKERS: 127.0.0.1:1\n";
  await writeFile(creds, text, { mode: 0o600 });
  serve = ["serve", "--port", "0", "--creds", creds, "--data", folder.path];
});
after(() => folder.remove());

const skip = process.platform !== "linux" && "only Linux has /proc";

for (const program of [
  ["npx", "tsx", "main.ts"],
  ["npm", "start", "--"],
]) {
  test(`SIGTERM to ${program.slice(0, 2).join(" ")} ends the server within 3 s`, { skip }, async () => {
    const server = start(serve, { program, cwd: root });
    await server.said(/Listening on /);
    const descendants = await descendantsOf(server.pid);
    const began = Date.now();
    server.kill("SIGTERM");
    await untilGone(descendants).finally(() => end(descendants));
    assert.ok(descendants.length >= 2, `${descendants}`); // a shell and the program
    assert.ok(Date.now() - began < 3_000, `${Date.now() - began} ms`);
  });
}

test("a server under nohup outlives the shell that started it", { skip }, async () => {
  const script = 'nohup npx tsx main.ts "$@" >"$0" 2>&1 & echo $!';
  const child = spawn("sh", ["-c", script, join(folder.path, "log"), ...serve], { cwd: root });
  let pid = 0;
  child.stdout.on("data", (text) => {
    pid = Number(text);
  });
  await new Promise((resolve) => child.once("exit", resolve));
  // Before that the program does not handle signals yet.
  const isListening = async () =>
    /Listening on /.test(await readFile(join(folder.path, "log"), "utf8").catch(() => ""));
  for (let tries = 0; tries < 600 && !(await isListening()); tries++) await sleep(100);
  const descendants = await descendantsOf(pid);
  assert.ok(descendants.length >= 3, `${descendants}`); // a shell, tsx and the program
  await sleep(3_000);
  assert.deepEqual(
    await Promise.all([pid, ...descendants].map(runs)),
    [pid, ...descendants].map(() => true),
  );
  process.kill(pid, "SIGTERM");
  await untilGone(descendants).finally(() => end(descendants));
});

test("only a shell that npm started for the program alone is watched", () => {
  const shellOf = (command: string, above: string[]) =>
    npmShell(
      3,
      (pid) =>
        ({
          1: { parent: 0, args: above },
          2: { parent: 1, args: ["sh", "-c", command] },
          3: { parent: 2, args: ["node", "node_modules/.bin/tsx", "main.ts"] },
        })[pid],
    );
  assert.equal(shellOf("'tsx' main.ts serve", ["npm exec tsx main.ts serve"]), 2);
  assert.equal(shellOf("tsx main.ts", ["node", "/usr/bin/npm-cli.js", "start"]), 2);
  for (const [command, above] of [
    ["tsx main.ts serve & sleep 1", "npm start"],
    ["tsx main.ts; date", "npm start"],
    ["tsx main.ts serve", "bash"],
    ["tsx main.ts serve", "systemd"],
  ] as const) {
    assert.equal(shellOf(command, [above]), undefined, `${command} under ${above}`);
  }
  assert.equal(
    npmShell(process.ppid, () => undefined),
    undefined,
  );
});

/** Ends what a failed test would leave. */
function end(pids: number[]): void {
  for (const pid of pids) {
    if (readProcess(pid)) process.kill(pid, "SIGKILL");
  }
}

/** The processes below one, from Linux's list. */
async function descendantsOf(pid: number): Promise<number[]> {
  const pids = (await readdir("/proc")).filter((name) => /^\d+$/.test(name)).map(Number);
  const isBelow = (one: number | undefined): boolean => {
    const parent = one && readProcess(one)?.parent;
    return parent === pid || (parent ? isBelow(parent) : false);
  };
  return pids.filter(isBelow);
}
