import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import diagnostics from "node:diagnostics_channel";
import { once } from "node:events";
import { writeFile } from "node:fs/promises";
import { Agent, request as rawRequest } from "node:http";
import { connect, type Socket } from "node:net";
import { join } from "node:path";
import { after, before, test } from "node:test";
import { setTimeout as sleep } from "node:timers/promises";
import type { FastifyInstance, RouteOptions } from "fastify";
import type { LatestPost } from "../../http/latest_posts.ts";
import { serve } from "../../http/server.ts";
import { tableNames } from "../../io.ts";
import { json, type OpenApi, openClient, proxy, startServer as startAt } from "../support/http_api.ts";
import { readTopic, type SharedServices, shareServices } from "../support/services.ts";
import { type Running, run, start } from "../support/support.ts";

type Client = Awaited<ReturnType<typeof openClient>>;

let services: SharedServices;
let server: Running;
let url: string;
let ask: Client["ask"];
let sendData: Client["sendData"];
let produce: Client["produce"];

const startServer = (prefix: string, args: string[] = [], env: NodeJS.ProcessEnv = {}) =>
  startAt([...services.at, "--prefix", prefix, ...args], env);

before(async () => {
  services = await shareServices({ rows: 50, name: "serve" });
  ({ server, url } = await startServer("api", ["--any-prefix"]));
  ({ ask, sendData, produce } = await openClient(url));
});
after(async () => {
  server?.kill("SIGTERM");
  await server?.done;
  await services?.close();
});

test("send-data accepts short and full names, one row or a list, and answers with the offset of each row, which is stored byte for byte", async () => {
  const odd =
    '{"index": 12345678901234567890,\n\t"title":"\\u00e9\\ud83d\\ude00 \\"}],[{", "latitude":-0, "latitude":1e-7}';
  const one = await sendData(`{"topic_name":"pin","data":${odd} }`);
  assert.equal(one.status, 200);
  assert.equal(one.body.topic, "api.pin");
  const list = await sendData({
    topic_name: "api.pin",
    data: [{ index: 1 }, { ind: 2 }, { index: "3" }, { title: "none" }],
  });
  assert.equal(list.body.stored, 4);
  const messages = await readTopic(services.kafka, "api.pin");
  const places = [one, list].flatMap(({ body }) => body.offsets as { partition: number; offset: number }[]);
  const found = places.map(({ offset }) => messages.find((message) => message.offset === offset));
  assert.deepEqual(
    found.map((message) => [message?.key?.toString(), message?.value?.toString()]),
    [
      ["12345678901234567890", odd],
      ["1", '{"index":1}'],
      ["2", '{"ind":2}'],
      ["3", '{"index":"3"}'],
      [undefined, '{"title":"none"}'],
    ],
  );
});

test("topics answers like the Kafka REST proxy, keeps keys and partitions, and accepts any prefix with --any-prefix", async () => {
  assert.deepEqual((await ask("/topics")).body, ["api.pin", "api.geo", "api.user"]);
  const records = [
    { value: { ind: 7 } },
    { key: "k", value: { ind: 8 }, partition: 0 },
    { key: 9, value: null },
    { key: { a: [1] }, value: "text" },
  ];
  const { status, body } = await produce("0a5e6ec37a2f.geo", { records });
  assert.equal(status, 200);
  const messages = await readTopic(services.kafka, "api.geo");
  const [first] = body.offsets as { offset: number }[];
  assert.deepEqual(body, {
    offsets: records.map((_, i) => ({
      partition: 0,
      offset: (first?.offset as number) + i,
      error_code: null,
      error: null,
    })),
    key_schema_id: null,
    value_schema_id: null,
  });
  assert.deepEqual(
    messages.slice(-4).map((message) => [message.key?.toString(), message.value?.toString()]),
    [
      ["7", '{"ind":7}'],
      ["k", '{"ind":8}'],
      ["9", undefined],
      ['{"a":[1]}', '"text"'],
    ],
  );
});

test("a record with a key and no value is a delete: its key is stored without a value", async () => {
  const greatest = "9223372036854775807";
  const keys = `7, "8", "007", 0, ${greatest}, "${greatest}"`.split(", ");
  const { status, body } = await produce("api.user", `{"records": [${keys.map(deletes).join()}]}`);
  assert.equal(status, 200, JSON.stringify(body));
  const messages = await readTopic(services.kafka, "api.user");
  const stored = (body.offsets as { offset: number }[]).map((place) => messages.find((m) => m.offset === place.offset));
  assert.deepEqual(
    stored.map((message) => [message?.key?.toString(), message?.value]),
    ["7", "8", "007", "0", greatest, greatest].map((key) => [key, null]),
  );
});

/** A record that deletes, as text; the key is JSON. */
const deletes = (key: string) => `{"key": ${key}, "value": null}`;

test("an invalid request is refused with its reason, and nothing of it is stored", async () => {
  const count = async () => {
    const all = [];
    for (const table of tableNames) all.push((await readTopic(services.kafka, `api.${table}`)).length);
    return all;
  };
  const earlier = await count();
  const typed = (path: string, type: string | undefined) =>
    ask(path, { method: "POST", body: Buffer.from("{}"), headers: type === undefined ? {} : { "content-type": type } });
  const many = Array.from({ length: 10_001 }, () => ({ index: 1 }));
  const cases: [Promise<{ status: number; body: Record<string, unknown> }>, number, RegExp, number?][] = [
    [sendData("{"), 400, /^The body is not valid JSON: /],
    [sendData(""), 400, /./],
    [sendData(Buffer.from([0x22, 0xff, 0x22]) as unknown as string), 400, /./],
    [sendData([1]), 400, /"topic_name" must be text/],
    [sendData({ topic_name: 1, data: {} }), 400, /"topic_name" must be text/],
    [sendData({ topic_name: "pin" }), 400, /"data" is missing/],
    [sendData({ topic_name: "pin", data: [] }), 400, /"data" is empty/],
    [sendData({ topic_name: "pin", data: [{}, 1] }), 400, /Row 1 of "data" must be an object/],
    [sendData({ topic_name: "pin", data: "{}" }), 400, /Row 0 of "data" must be an object/],
    [sendData({ topic_name: "pins", data: {} }), 404, /Topic "pins" not found/],
    [sendData({ topic_name: "pin", data: many }), 413, /10001 rows/],
    [
      sendData({ topic_name: "pin", data: { index: 1, title: "x".repeat(4_000_000) } }),
      413,
      /larger than 4000000 bytes/,
    ],
    [typed("/send-data", "text/plain"), 415, /^Content-Type must be application\/json, not "text\/plain"$/],
    [typed("/send-data", "nonsense"), 415, /must be application\/json, not "nonsense"$/],
    [typed("/send-data", undefined), 415, /must be application\/json, but none was given$/],
    [typed("/send-data", proxy["content-type"]), 415, /must be application\/json, not "application\/vnd/],
    [typed("/login", "text/plain"), 415, /must be application\/json, not "text\/plain"$/],
    [ask("/send-data", { method: "PUT" }), 405, /accepts only POST/],
    [ask("/nothing"), 404, /no GET \/nothing/],
    [ask("/%zz"), 400, /'\/%zz' is not a valid url/],
    [produce("api.pins", { records: [{ value: {} }] }), 404, /not found/, 40401],
    [produce("pin", {}), 422, /"records" must be a list/, 422],
    [produce("pin", { records: [] }), 422, /"records" is empty/, 422],
    [produce("pin", { records: [{ key: 1 }] }), 422, /Record 0 must be an object with a "value"/, 422],
    [produce("pin", { records: [{ value: {}, partition: 7 }] }), 404, /Partition 7/, 40402],
    [produce("pin", { records: [{ value: {}, partition: "0" }] }), 422, /whole number/, 422],
    [
      produce("pin", { records: [{ value: {} }, { value: null }] }),
      422,
      /^Record 1 has no value, .*, there is none$/,
      422,
    ],
    [
      produce("pin", { records: [{ key: null, value: null }] }),
      422,
      /from 0 to 9223372036854775807 .*, not null$/,
      422,
    ],
    ...['"k"', '""', "-1", '"-1"', "1.0", '"1.0"', '" 1"', "9223372036854775808", "true", '{"a": 1}', "[1]"].map(
      (key): (typeof cases)[number] => [
        produce("pin", `{"records": [${deletes(key)}]}`),
        422,
        new RegExp(`^Record 0 has no value, which deletes a row: .*, not ${key.replace(/[[{]/g, "\\$&")}$`),
        422,
      ],
    ),
    [sendData({ topic_name: "pin", data: null }), 400, /Row 0 of "data" must be an object/],
    [produce("pin", "nothing"), 400, /not valid JSON/, 400],
    [typed("/topics/pin", json["content-type"]), 415, /must be application\/vnd\.kafka\.json\.v2\+json, not "app/, 415],
    [typed("/topics/pin", "text/plain"), 415, /must be application\/vnd\.kafka\.json\.v2\+json, not "text\/p/, 415],
    [produce("pin", { records: [{ value: "x".repeat(4_000_000) }] }), 413, /larger than 4000000 bytes/, 413],
  ];
  for (const [asked, status, message, code] of cases) {
    const answer = await asked;
    assert.equal(answer.status, status, JSON.stringify(answer.body));
    assert.match(String(answer.body[code === undefined ? "error" : "message"]), message);
    if (code !== undefined) assert.equal(answer.body.error_code, code);
  }
  assert.deepEqual(await count(), earlier);
});

test("a topic of another prefix is refused with a remedy", async () => {
  const { server: own, url: at } = await startServer("own");
  try {
    const remedy = "; start serve with --any-prefix to accept it";
    for (const [name, hint] of [
      ["0a5e6ec37a2f.pin", remedy],
      ["0a5e6ec37a2f.pins", ""],
    ] as const) {
      const { status, body } = await produce(name, { records: [{ value: {} }] }, at);
      assert.equal(status, 404);
      assert.equal(body.message, `Topic "${name}" not found; there are "own.pin", "own.geo", "own.user"${hint}`);
    }
  } finally {
    own.kill("SIGTERM");
    await own.done;
  }
});

test("foreign pages are refused: a foreign Origin, a foreign name that resolves to this server", async () => {
  const { host } = new URL(url);
  const status = (headers: Record<string, string>) =>
    new Promise<number | undefined>((resolve, reject) => {
      const request = rawRequest(
        `${url}/send-data`,
        { method: "POST", headers: { ...json, ...headers } },
        (response) => {
          response.resume();
          resolve(response.statusCode);
        },
      );
      request.on("error", reject);
      request.end('{"topic_name":"user","data":{"ind":1}}');
    });
  const port = host.split(":")[1];
  assert.equal(await status({ host, origin: url }), 200);
  assert.equal(await status({ host: `localhost:${port}` }), 200);
  assert.equal(await status({ host, origin: "http://evil.example" }), 403);
  assert.equal(await status({ host, origin: "null" }), 403);
  assert.equal(await status({ host: `evil.example:${port}` }), 403);
  assert.equal(await status({ host: `evil.example:${port}`, origin: `http://evil.example:${port}` }), 403);
});

test("concurrent requests share transactions, and every answer is true", async () => {
  const transactions = async () =>
    Number(/^pipeline_transactions_total\{outcome="stored"\} (\d+)/m.exec((await ask("/metrics")).text)?.[1]);
  const earlier = await transactions();
  const answers = await Promise.all(
    Array.from({ length: 400 }, (_, n) =>
      sendData({ topic_name: tableNames[n % 3], data: { index: n, ind: n, shared: n } }),
    ),
  );
  const shared = (await transactions()) - earlier;
  assert.ok(shared < 200, `${shared} transactions`);
  const topics = Object.fromEntries(
    await Promise.all(
      tableNames.map(async (table) => [`api.${table}`, await readTopic(services.kafka, `api.${table}`)] as const),
    ),
  );
  for (const [n, { body }] of answers.entries()) {
    const [place] = body.offsets as { offset: number }[];
    const message = topics[body.topic as string]?.find(({ offset }) => offset === place?.offset);
    assert.equal((JSON.parse(message?.value?.toString() ?? "") as { shared: number }).shared, n);
  }
});

/** COURSE_TRIPLES=1000 takes a minute. */
const triples = Number(process.env.COURSE_TRIPLES ?? 60);

test("a script like the course's posts its triples to both endpoints", async (t) => {
  const python = spawnSync("python3", ["-c", "import requests"]);
  if (python.status !== 0) return t.skip("python3 with requests is not installed");
  const { server: own, url: at } = await startServer("course", ["--any-prefix"]);
  try {
    const client = start([], {
      program: ["python3", new URL("course_client.py", import.meta.url).pathname, at, String(triples)],
    });
    const { code, stderr } = await client.done;
    assert.equal(code, 0, stderr);
    for (const table of tableNames) {
      const messages = await readTopic(services.kafka, `course.${table}`);
      assert.deepEqual(
        messages.map((message) => Number(message.key)),
        Array.from({ length: 2 * triples }, (_, n) => n),
      );
    }
    const clean = await run([
      "clean",
      "--data",
      join(services.folder.path, "course"),
      "--creds",
      services.creds,
      "--prefix",
      "course",
      "--json",
    ]);
    assert.equal(clean.code, 0, clean.stderr);
  } finally {
    own.kill("SIGTERM");
    await own.done;
  }
});

test("without a token the server listens on loopback only; with one, it answers nobody without it", async () => {
  const open = await run(["serve", ...services.at, "--host", "0.0.0.0", "--port", "0"]);
  assert.equal(open.code, 2);
  assert.match(open.stderr, /Cannot serve on "0.0.0.0" without a token/);
  const file = join(services.folder.path, "token");
  const token = "correct-horse-battery";
  await writeFile(file, `${token}\n`, { mode: 0o644 });
  const { server: own, url: at } = await startServer("closed", ["--token-file", file]);
  try {
    assert.equal(own.output().match(/Warning: Others on this machine can read ".*token"/g)?.length, 1);
    for (const path of ["/topics", "/status", "/events", "/metrics", "/rejects", "/report", "/rejects/pin/0/0"]) {
      assert.equal((await ask(path, { at })).status, 401, path);
    }
    assert.equal((await sendData({ topic_name: "pin", data: { index: 1 } }, at)).status, 401);
    assert.equal((await readTopic(services.kafka, "closed.pin")).length, 0);
    const page = await ask("/", { at });
    assert.deepEqual([page.status, page.headers.get("location")], [303, "/login"]);
    for (const path of ["/healthz", "/readyz", "/openapi.json", "/login"])
      assert.equal((await ask(path, { at })).status, 200);
    const bearer = (given: string) => ask("/topics", { at, headers: { authorization: `Bearer ${given}` } });
    assert.equal((await bearer(token)).status, 200);
    assert.equal((await bearer("correct-horse-batterx")).status, 401);
    const logIn = (given: unknown) =>
      ask("/login", { at, method: "POST", headers: json, body: JSON.stringify({ token: given }) });
    assert.equal((await logIn("wrong")).status, 401);
    assert.equal((await logIn(null)).status, 401);
    const login = await logIn(token);
    assert.equal(login.status, 204);
    const cookie = login.headers.get("set-cookie") ?? "";
    assert.match(cookie, /^pipeline_session=[^;]+; Max-Age=43200; Path=\/; HttpOnly; SameSite=Strict$/);
    assert.ok(!cookie.includes(token));
    const session = cookie.split(";")[0] as string;
    assert.equal((await ask("/status", { at, headers: { cookie: session } })).status, 200);
    const forged = session.replace(/.$/, (last) => (last === "A" ? "B" : "A"));
    const other = (await logIn(token)).headers.get("set-cookie")?.split(";")[0] as string;
    const withCookie = async (cookie: string) => (await ask("/status", { at, headers: { cookie } })).status;
    assert.deepEqual([await withCookie(forged), await withCookie(other)], [401, 200]);
    // A logout ends its session on the server and its event streams; another session continues.
    const watch = (cookie: string) => fetch(`${at}/events`, { headers: { cookie } });
    const [ending, going] = [await watch(session), await watch(other)];
    const out = await ask("/logout", { at, method: "POST", headers: { cookie: session } });
    assert.deepEqual(
      [out.status, out.headers.get("set-cookie")?.split(";")[0], await withCookie(session), await withCookie(other)],
      [204, "pipeline_session=", 401, 200],
    );
    const ended = ending.text().then(() => "ended");
    assert.equal(await Promise.race([ended, sleep(5_000, "still watching", { ref: false })]), "ended");
    await going.body?.cancel();
  } finally {
    own.kill("SIGTERM");
    const { stderr, stdout } = await own.done;
    assert.ok(!`${stdout}${stderr}`.includes(token));
  }
  const short = await run(["serve", ...services.at], { env: { PIPELINE_TOKEN: "short" } });
  assert.deepEqual([short.code, short.stderr.includes("short")], [2, false]);
  const env = { PIPELINE_TOKEN: "another-token-of-the-environment" };
  const both = await run(["serve", ...services.at, "--token-file", "x"], { env });
  assert.deepEqual([both.code, /two tokens/.test(both.stderr)], [2, true], both.stderr);
});

test("the description names exactly the routes that Fastify has", async () => {
  const routes: RouteOptions[] = [];
  const collect = (message: unknown) =>
    void (message as { fastify: FastifyInstance }).fastify.addHook("onRoute", (route) => void routes.push(route));
  diagnostics.subscribe("fastify.initialization", collect);
  const stop = new AbortController();
  const nowhere = { host: "127.0.0.1", port: 1 };
  const mysql = { ...nowhere, user: "nobody", password: "", database: "none" };
  let described: string[] = [];
  const hidden: string[] = [];
  await serve({
    ...{ mysql, kafka: { ...services.kafka, prefix: "described" }, lake: join(services.folder.path, "none") },
    ...{ host: nowhere.host, port: 0, anyPrefix: false, signal: stop.signal },
    commands: { post: "", clean: "", rebuild: "", report: "", serve: "" },
    async onFact(fact) {
      if (fact.fact !== "listening") return;
      try {
        const { paths } = (await (await fetch(`${fact.url}/openapi.json`)).json()) as OpenApi;
        described = Object.entries(paths).flatMap(([path, methods]) =>
          Object.keys(methods).map((method) => `${method} ${path}`),
        );
        for (const { url } of routes.filter(({ schema }) => schema?.hide)) {
          hidden.push(`${url} ${(await fetch(`${fact.url}${url}`, { method: "DELETE" })).status}`);
        }
      } finally {
        stop.abort();
      }
    },
  }).finally(() => diagnostics.unsubscribe("fastify.initialization", collect));
  const shown = routes.filter(({ schema, method }) => !schema?.hide && method !== "HEAD");
  assert.ok(shown.every(({ schema }) => schema?.summary && schema.response));
  assert.deepEqual(
    shown.map(({ method, url }) => `${String(method).toLowerCase()} ${url.replace(/:(\w+)/g, "{$1}")}`).sort(),
    described.sort(),
  );
  // Each path has one hidden route, which refuses its other methods.
  const paths = [...new Set(shown.map(({ url }) => url))];
  assert.deepEqual(hidden.sort(), paths.map((url) => `${url} 405`).sort());
});

test("health, metrics and the requests of the page are answered as described", async () => {
  for (const path of ["/healthz", "/readyz", "/metrics", "/status", "/rejects", "/", "/page/page.js"]) {
    assert.equal((await ask(path)).status, 200, path);
  }
  assert.equal((await ask("/report")).status, 404);
  const noReport = await ask("/report", { headers: { accept: "text/html,*/*;q=0.8" } });
  assert.equal(noReport.status, 404);
  assert.match(noReport.text, /^<!doctype html>.*There is no report yet\./s);
  assert.match((await ask("/openapi.json")).text, /^\{\n {2}"openapi": /);
  assert.equal((await ask("/rejects/pin/0/0")).status, 404);
  assert.equal((await ask("/rejects?table=pins")).status, 400);
  assert.equal((await ask("/page/..%2fserver.ts")).status, 404);
  assert.match((await ask("/metrics")).text, /^pipeline_http_rows_total\{table="pin",outcome="stored"\} \d+$/m);
});

test("the latest posts are the newest by time over all topics, with the fields of each topic", async () => {
  const { server: first, url: at } = await startServer("latest");
  for (const [topic_name, ind] of [
    ["geo", 1],
    ["pin", 2],
    ["user", 3],
    ["geo", 4],
    ["pin", 5],
    ["pin", 1],
  ]) {
    await sendData({ topic_name, data: { ind } }, at);
    await sleep(5);
  }
  // A post's rows are found behind many newer messages of one topic, each with its transaction marker.
  for (const topic_name of tableNames) await sendData({ topic_name, data: { ind: 6, title: "six" } }, at);
  for (let n = 0; n < 60; n++) await sendData({ topic_name: "pin", data: { ind: 7 } }, at);
  first.kill("SIGTERM");
  await first.done;
  const { server: second, url } = await startServer("latest");
  try {
    const { posts } = (await ask("/status", { at: url })).body as { posts: LatestPost[] };
    assert.deepEqual(
      posts.map(({ key, tables, title }) => [key, tables.join(" "), title]),
      [
        ["7", "pin", null],
        ["6", "pin geo user", "six"],
        ["1", "pin geo", null],
        ["5", "pin", null],
        ["4", "geo", null],
        ["3", "user", null],
        ["2", "pin", null],
      ],
    );
  } finally {
    second.kill("SIGTERM");
    await second.done;
  }
});

/** Keeps so many raw connections open and sends `text` on each; reopens those that the server closes. */
function besiege(at: string, { count, text, from }: { count: number; text: string; from?: string }) {
  const port = Number(new URL(at).port);
  const sockets = new Set<Socket>();
  let answers = "";
  let closed = 0;
  let going = true;
  const open = () => {
    const socket = connect({ port, host: "127.0.0.1", ...(from !== undefined && { localAddress: from }) });
    sockets.add(socket);
    socket.write(text);
    socket.on("data", (data) => {
      answers += data.toString();
    });
    socket.on("error", () => {});
    socket.on("close", () => {
      sockets.delete(socket);
      closed++;
      if (going) setTimeout(open, 250);
    });
  };
  for (let n = 0; n < count; n++) open();
  return {
    answers: () => answers,
    closed: () => closed,
    end: () => {
      going = false;
      for (const socket of sockets) socket.destroy();
    },
  };
}

/** Posts one row over a new connection, unless an agent keeps one. */
const postRow = (at: string, headers: Record<string, string>, agent: Agent | false = false) =>
  new Promise<number | string>((resolve) => {
    const options = { method: "POST", headers: { ...json, ...headers }, agent };
    const request = rawRequest(`${at}/send-data`, options, (response) => {
      response.resume().on("end", () => resolve(response.statusCode ?? 0));
    });
    request.on("error", (error) => resolve(error.message));
    request.end('{"topic_name":"user","data":{"ind":1}}');
  });

const startOf = (path: string, length: number, body = "") =>
  `POST ${path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: ${length}\r\n\r\n${body}`;

test("clients that show no token or send nothing do not slow down those that post", async () => {
  const env = { PIPELINE_TOKEN: "a-token-against-sieges" };
  const { server: own, url: closed } = await startServer("besieged", [], env);
  const attacks = {
    "logins of 4 MB that never come": { count: 20, text: startOf("/login", 4_000_000) },
    "logouts that never come": { count: 1_200, text: startOf("/logout", 100) },
    "rows that never come": { count: 60, text: startOf("/send-data", 4_000_000, "{") },
    "public pages, then nothing": { count: 60, text: "GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n" },
    "half a head": { count: 60, text: "POST /send-data HTTP/1.1\r\nHost: local" },
    "nothing at all": { count: 2_200, text: "" },
  };
  const agent = new Agent({ keepAlive: true });
  try {
    for (const [at, headers] of [
      [url, {}],
      [closed, { authorization: `Bearer ${env.PIPELINE_TOKEN}` }],
    ] as const) {
      for (const [name, attack] of Object.entries(attacks)) {
        const siege = besiege(at, attack);
        try {
          await sleep(200);
          for (let n = 0; n < 6; n++) {
            const kept = n % 2 === 0 ? agent : false;
            assert.equal(await postRow(at, headers, kept), 200, `${name}, post ${n}`);
            await sleep(20);
          }
        } finally {
          siege.end();
        }
      }
    }
  } finally {
    agent.destroy();
    own.kill("SIGTERM");
    await own.done;
  }
});

test("too many connections of one address end one another, never those of another address", async () => {
  const port = Number(new URL(url).port);
  const ask = async (socket: Socket) => {
    let answer = "";
    socket.on("error", () => {});
    socket.on("data", (data) => {
      answer += data.toString();
    });
    socket.end("GET /healthz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
    await once(socket, "close");
    return /^HTTP\/1.1 (\d+) /.exec(answer)?.[1];
  };
  const early = connect(port, "127.0.0.1");
  await once(early, "connect");
  const siege = besiege(url, { count: 2_200, text: "", from: "127.0.0.2" });
  try {
    for (let tries = 0; tries < 100 && siege.closed() < 1_000; tries++) await sleep(50);
    assert.deepEqual([await ask(connect(port, "127.0.0.1")), await ask(early)], ["200", "200"]);
  } finally {
    siege.end();
    early.destroy();
  }
});

test("a head or a login that is too slow or too large is ended, and a login beside them succeeds", async () => {
  const env = { PIPELINE_TOKEN: "a-token-against-sieges" };
  const { server: own, url: at } = await startServer("slow", [], env);
  const slow = ["", "POST /send-data HTTP/1.1\r\n", startOf("/login", 4_000, "{"), startOf("/logout", 4_000, "{")].map(
    (text) => besiege(at, { count: 5, text }),
  );
  try {
    const init = { at, method: "POST", headers: json };
    assert.equal((await ask("/login", { ...init, body: JSON.stringify({ token: "x".repeat(5_000) }) })).status, 413);
    assert.equal((await ask("/login", { ...init, body: JSON.stringify({ token: env.PIPELINE_TOKEN }) })).status, 204);
    for (let tries = 0; tries < 90 && slow.some((siege) => siege.closed() < 5); tries++) await sleep(100);
    assert.deepEqual(
      slow.map((siege) => siege.closed() >= 5 && / 408 /.test(siege.answers())),
      [true, true, true, true],
    );
  } finally {
    for (const siege of slow) siege.end();
    own.kill("SIGTERM");
    await own.done;
  }
});

test("a flood of bodies is refused, and bodies that stall make room", async () => {
  const flood = besiege(url, { count: 10, text: startOf("/send-data", 3_900_000, "[".repeat(3_899_999)) });
  try {
    // Memory holds eight of them: 32 MB.
    for (let tries = 0; tries < 100 && flood.closed() === 0; tries++) await sleep(50);
    assert.match(flood.answers(), /^HTTP\/1.1 503 [\s\S]*retry-after: 1\r\n[\s\S]*Too many requests are open/i);
    assert.equal((await ask("/healthz")).status, 200);
  } finally {
    flood.end();
  }
  const stalled = besiege(url, { count: 8, text: startOf("/send-data", 3_900_000, "[".repeat(3_899_999)) });
  try {
    const big = { topic_name: "pin", data: { index: 1, title: "x".repeat(3_000_000) } };
    const statuses = new Set<number | string>();
    for (let tries = 0; tries < 50 && !statuses.has(200); tries++) {
      // A refusal can reach a client that still sends as a lost connection.
      statuses.add(await sendData(big).then(({ status }) => status, String));
      await sleep(100);
    }
    assert.ok(statuses.has(200), [...statuses].join());
  } finally {
    stalled.end();
  }
});

test("after SIGTERM the server answers open requests and ends within 3 s with exit code 143", async () => {
  const { server: own, url: at } = await startServer("ended");
  const events = await fetch(`${at}/events`);
  const asked = Array.from({ length: 50 }, (_, n) => sendData({ topic_name: "pin", data: { index: n } }, at));
  await Promise.race(asked);
  const began = Date.now();
  own.kill("SIGTERM");
  const answers = await Promise.allSettled(asked);
  const { code } = await own.done;
  assert.equal(code, 143);
  assert.ok(Date.now() - began < 3_500);
  await events.body?.cancel().catch(() => {});
  const stored = answers.filter((answer) => answer.status === "fulfilled" && answer.value.status === 200).length;
  assert.ok(stored > 0);
  assert.ok((await readTopic(services.kafka, "ended.pin")).length >= stored);
});
