import assert from "node:assert/strict";
import { test } from "node:test";
import { sources } from "./support/sources.ts";

const ground = ["io", "runtime"];
const systems = ["db_conn", "kafka", "lake"];

/** What each room and face may import, besides itself (docs/ARCHITECTURE.md). */
const allowed: Record<string, string[]> = {
  runtime: [],
  io: ["runtime"],
  db_conn: ground,
  kafka: ground,
  lake: ground,
  local: ground,
  api: ["db_conn", "kafka", ...ground],
  clean: ["kafka", "lake", ...ground],
  report: [...systems, ...ground],
  http: ["report", ...systems, ...ground],
  cli: ["http", "api", "report", "local", ...systems, ...ground],
  main: ["cli", "api", "clean", "report", "local", "lake", "io", "runtime"],
};

const roomOf = (path: string): string => path.split("/")[0]?.replace(/\.ts$/, "") ?? "";

test("imports go down: each room imports only what its place allows", () => {
  const broken = sources().flatMap(({ path, imports }) =>
    imports
      .filter((to) => roomOf(to) !== roomOf(path) && !allowed[roomOf(path)]?.includes(roomOf(to)))
      .map((to) => `${path} imports ${to}`),
  );
  assert.deepEqual(broken, []);
});

test("no file imports itself through others", () => {
  const imports = new Map(sources().map((source) => [source.path, source.imports]));
  const done = new Set<string>();
  const circles: string[] = [];
  const walk = (path: string, way: string[]) => {
    if (way.includes(path)) circles.push([...way.slice(way.indexOf(path)), path].join(" -> "));
    if (done.has(path) || way.includes(path)) return;
    for (const next of imports.get(path) ?? []) walk(next, [...way, path]);
    done.add(path);
  };
  for (const path of imports.keys()) walk(path, []);
  assert.deepEqual(circles, []);
});

test("the top level shows the five faces", () => {
  const top = sources().filter(({ path }) => !path.includes("/"));
  assert.deepEqual(
    top.map(({ path }) => path),
    ["api.ts", "clean.ts", "db_conn.ts", "io.ts", "main.ts"],
  );
});

/** Files of more than 400 lines. */
const longFiles: string[] = [];

/** Functions of more than 80 lines. */
const longFunctions: string[] = [];

test("a file has at most 400 lines and a function at most 80, except those named here", () => {
  const files = sources().filter(({ text }) => text.split("\n").length > 401);
  assert.deepEqual(
    files.map(({ path }) => path),
    longFiles,
  );
  const functions = sources().flatMap(({ text }) =>
    [...text.matchAll(/^(?:export )?(?:async )?(?:function\*? (\w+)|const (\w+) = .*=> \{$)[\s\S]*?\n\}/gm)]
      .filter(([body]) => body.split("\n").length > 80)
      .map(([, name, constant]) => name ?? constant),
  );
  assert.deepEqual(functions.sort(), longFunctions);
});
