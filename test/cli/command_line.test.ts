import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { once } from "node:events";
import { existsSync, readdirSync, readFileSync } from "node:fs";
import { chmod, mkdir, rm, writeFile } from "node:fs/promises";
import { type AddressInfo, createServer } from "node:net";
import { join } from "node:path";
import { after, before, test } from "node:test";
import { readArguments } from "../../cli/arguments.ts";
import { readCredentials } from "../../cli/credentials.ts";
import { UsageError } from "../../runtime/errors.ts";
import { programName as ownName } from "../../runtime/program.ts";
import { programName, run, start, startSources, temporaryFolder } from "../support/support.ts";

startSources();

let folder: Awaited<ReturnType<typeof temporaryFolder>>;
before(async () => {
  folder = await temporaryFolder();
});
after(() => folder.remove());

const withCreds = async (text: string, args = ["explore"], mode = 0o600) => {
  const path = join(folder.path, "db_creds.yaml");
  await writeFile(path, text);
  await chmod(path, mode);
  return run([...args, "--wait", "0"], { cwd: folder.path });
};

test("--help names every command, option and exit code, and goes to stdout", async () => {
  const { code, stdout, stderr } = await run(["--help"]);
  assert.equal(code, 0);
  assert.equal(stderr, "");
  for (const word of [
    "up",
    "down",
    "reset",
    "explore",
    "emulate",
    "post",
    "serve",
    "clean",
    "report",
    "status",
    "eject",
  ]) {
    assert.match(stdout, new RegExp(`^ {2}${word} `, "m"));
  }
  for (const option of [
    "data",
    "creds",
    "prefix",
    "wait",
    "rows",
    "index",
    "full",
    "follow",
    "rebuild",
    "yes",
    "json",
    "limit",
    "rate",
    "seed",
    "host",
    "port",
    "token-file",
    "any-prefix",
    "sql",
    "licences",
    "changes",
  ]) {
    assert.match(stdout, new RegExp(`^ {2}(-\\w, )?--${option}[ \\n]`, "m"));
  }
  for (const word of ["--quiet", "--help", "--version", "KAFKA_HOME", "MARIADB_HOME", "db_creds.example.yaml"]) {
    assert.ok(stdout.includes(word), word);
  }
  assert.match(stdout, /Exit codes: 0 .* 1 .* 2 .* 3 .* 130 and 143/s);
  assert.ok(stdout.split("\n").every((line) => line.length <= 80));
});

test("--version prints the version of package.json", async () => {
  const { code, stdout } = await run(["--version"]);
  assert.equal(code, 0);
  assert.match(stdout, /^\d+\.\d+\.\d+\n$/);
});

test("wrong usage is one line on stderr and exit code 2", async () => {
  const stderr = `Error: Unknown command "fly"; see "${programName()} --help"\n`;
  assert.deepEqual(await run(["fly"]), { code: 2, signal: null, stdout: "", stderr });
});

for (const [args, message] of [
  [["fly"], `Unknown command "fly"; see "${ownName} --help"`],
  [["post", "now"], `Unexpected argument "now"; see "${ownName} post --help"`],
  [["--fast"], `Unknown option "--fast"; see "${ownName} --help"`],
  [["pots"], `Unknown command "pots"; did you mean "post"? See "${ownName} --help"`],
  [["post", "--fulll"], `Unknown option "--fulll"; did you mean "--full"? See "${ownName} post --help"`],
  [["completion", "csh"], 'completion needs bash, zsh or fish, not "csh"'],
  [["post", "--rebuild"], `"post" does not accept --rebuild; see "${ownName} post --help"`],
  [["clean", "--dry-run"], `--dry-run needs --rebuild; see "${ownName} clean --help"`],
  [["--rows", "many"], `--rows needs a whole number from 1 to 100000000, not "many"; see "${ownName} --help"`],
  [["--rows", "0"], `--rows needs a whole number from 1 to 100000000, not "0"; see "${ownName} --help"`],
  [["emulate", "--rate", "5"], '--rate needs posts per second, minute or hour, such as 5/s, 90/m or 10/h, not "5"'],
  [["explore", "--index", "1e3"], `--index needs the number of a post, not "1e3"; see "${ownName} explore --help"`],
  [
    ["--prefix", "a b"],
    'Cannot use --prefix "a b": a topic prefix is 1 to 200 letters, digits, dots, dashes or underscores',
  ],
  [
    ["--data", "/a[b]"],
    'Cannot use --data "/a[b]": DuckDB reads * ? [ ] and \\ in a path as patterns; choose another folder',
  ],
  [["emulate", "--limit"], `--limit needs a value; see "${ownName} emulate --help"`],
  [["serve", "--token-file"], `--token-file needs a value; see "${ownName} serve --help"`],
  [
    ["serve", "--token-file", "-x"],
    `Write a value that begins with a dash as --token-file=VALUE; see "${ownName} serve --help"`,
  ],
  [["up", "--zookeeper=3"], `--zookeeper takes no value; see "${ownName} up --help"`],
  [["--help=up"], `--help takes no value; see "${ownName} --help"`],
  [["eject", "/proc/e"], 'Cannot write to "/proc/e": it is not a folder for files'],
  [["--data", import.meta.filename], `Cannot use --data "${import.meta.filename}": it is not a folder`],
  [
    ["--data", `${import.meta.filename}/below`],
    `Cannot use --data "${import.meta.filename}/below": it is not a folder`,
  ],
  [["constructor"], `Unknown command "constructor"; see "${ownName} --help"`],
] as const) {
  test(`wrong usage is refused: ${args.join(" ")}`, () => {
    assert.throws(
      () => readArguments([...args]),
      (error: Error) => {
        assert.ok(error instanceof UsageError);
        assert.equal(error.message, message);
        return true;
      },
    );
  });
}

test("eject writes all files of sql/ and the example of credentials, and never overwrites an SQL file", async () => {
  const sql = join(folder.path, "sql");
  const first = await run(["eject", sql]);
  assert.deepEqual([first.code, first.stdout], [0, ""]);
  const own = new URL("../../sql/", import.meta.url).pathname;
  const names = readdirSync(own, { recursive: true, encoding: "utf8" }).filter((name) => name.endsWith(".sql"));
  assert.equal(
    first.stderr,
    `Wrote ${names.length} SQL files and db_creds.example.yaml to "${sql}"; edit them and run with --sql ${sql}\n`,
  );
  for (const name of names) assert.equal(readFileSync(join(sql, name), "utf8"), readFileSync(join(own, name), "utf8"));

  await rm(join(sql, "gaps.sql"));
  await writeFile(join(sql, "clean_pin.sql"), "mine");
  const again = await run(["eject", sql]);
  assert.deepEqual([again.code, again.stderr.includes("exists already: choose an empty folder")], [2, true]);
  assert.equal(readFileSync(join(sql, "clean_pin.sql"), "utf8"), "mine");
  assert.equal(existsSync(join(sql, "gaps.sql")), false);
});

for (const [args, message] of [
  [["eject"], /^Error: eject needs the folder to write to; see /],
  [["report", "--sql", "nowhere"], /^Error: --sql ".*nowhere" is not a folder; "eject" writes one\n$/],
  [
    ["report", "--sql", "typing"],
    /^Error: --sql ".*typing": "clean_pim.sql" is not used by anything; expected .*clean_pin.sql/,
  ],
] as const) {
  test(`a folder for SQL is checked: ${args.join(" ")}`, async () => {
    await mkdir(join(folder.path, "typing"), { recursive: true });
    await writeFile(join(folder.path, "typing", "clean_pim.sql"), "SELECT 1");
    const { code, stderr } = await run([...args], { cwd: folder.path });
    assert.match(stderr, message);
    assert.equal(code, 2);
  });
}

test("serve checks its token and address before it starts services", async () => {
  const data = join(folder.path, "unserved");
  const taken = createServer().listen(0, "127.0.0.1");
  await once(taken, "listening");
  const { port } = taken.address() as AddressInfo;
  const env = { PIPELINE_TOKEN: "short" };
  const results = await Promise.all([
    run(["serve", "--host", "0.0.0.0", "--data", data]),
    run(["serve", "--port", String(port), "--data", data]),
    run(["serve", "--data", data], { env }),
    run(["serve", "--host", "192.0.2.1", "--data", data], { env: { PIPELINE_TOKEN: "sixteen_characters" } }),
    run(["serve", "--host", "none.invalid", "--data", data], { env: { PIPELINE_TOKEN: "sixteen_characters" } }),
    run(["serve", "--data", data, "--token-file", "nowhere"]),
  ]);
  taken.close();
  for (const [i, message] of [
    /^Error: Cannot serve on "0\.0\.0\.0" without a token: /,
    /^Error: Cannot listen on 127\.0\.0\.1, port \d+: another program listens there/,
    /^Error: The token in PIPELINE_TOKEN must have 16 to 500 printable ASCII characters/,
    /^Error: Cannot listen on 192\.0\.2\.1, port \d+: this machine has no address "192\.0\.2\.1"; choose another with --host/,
    /^Error: Cannot listen on none\.invalid, port \d+: this machine has no address "none\.invalid"; choose another with --host/,
    /^Error: Cannot read the token: the file "nowhere" does not exist\n$/,
  ].entries()) {
    assert.equal(results[i]?.code, 2);
    assert.match(results[i]?.stderr ?? "", message);
  }
  assert.ok(!existsSync(data));
});

test("a cache folder in a file system of the kernel is refused before anything is started", async () => {
  const data = join(folder.path, "uncached");
  const env = { XDG_CACHE_HOME: "/proc/x", MARIADB_HOME: "", KAFKA_HOME: "" };
  const { code, stderr } = await run(["post", "--data", data], { env });
  assert.equal(stderr, 'Error: Cannot use XDG_CACHE_HOME "/proc/x": it is not a folder for files\n');
  assert.deepEqual([code, existsSync(data)], [2, false]);
});

test("the file of --creds must exist", async () => {
  const { code, stderr } = await run(["explore", "--creds", "nowhere.yaml"]);
  assert.equal(code, 2);
  assert.equal(stderr, 'Error: Cannot read "nowhere.yaml": the file does not exist; copy db_creds.example.yaml\n');
});

test("db_creds.yaml is checked as a whole: every problem at once, with line and column, and no secret", async () => {
  const { code, stderr } = await withCreds(
    `HOST: ""
USER: [a]
PASSWROD: hunter2
PORT: abc
KAFKA:
  BROKERS: [localhost]
  PARTITIONS: 0
  SSL: maybe
  SASL: { MECHANISM: magic, USERNAME: u, PASSWORD: [hunter2] }
SSL_CA: nowhere.pem
`,
  );
  assert.equal(code, 2);
  assert.equal(
    stderr,
    `Error: Cannot read "db_creds.yaml":
  line 1, column 7, HOST: expected a value but found ""
  line 2, column 7, USER: expected a value
  line 3, column 1: unknown key "PASSWROD"; did you mean PASSWORD?
  line 4, column 7, PORT: expected a port number but found "abc"
  line 6, column 12, KAFKA.BROKERS: expected brokers as "host:port" but found "localhost"
  line 7, column 15, KAFKA.PARTITIONS: expected a whole number above 0 but found "0"
  line 8, column 8, KAFKA.SSL: expected true or false but found "maybe"
  line 9, column 22, KAFKA.SASL.MECHANISM: expected plain or scram-sha-256 or scram-sha-512 but found "magic"
  line 9, column 52, KAFKA.SASL.PASSWORD: expected text ("" for none)
  line 1, column 1: "PASSWORD" is missing
  line 10, column 9, SSL_CA: the file "nowhere.pem" does not exist
`,
  );
});

for (const [host, found] of [
  ["http://db:3306", ' but found "http://db:3306"'],
  ["db:3306", ' but found "db:3306"'],
  ['"[::1]"', ' but found "[::1]"'],
  ["root:hunter2@db", ""],
] as const) {
  test(`HOST ${host} is refused instead of waited for`, async () => {
    const { code, stderr } = await withCreds(`HOST: ${host}\nUSER: u\nPASSWORD: hunter2\n`);
    assert.equal(code, 2);
    assert.equal(
      stderr,
      `Error: Cannot read "db_creds.yaml": line 1, column 7, HOST: expected a host name or address alone, without scheme, and its port as PORT${found}\n`,
    );
  });
}

test("keys in small letters are named in capitals", async () => {
  const { code, stderr } = await withCreds("host: db\nUSER: u\nhunter2: x\nPASSWORD: p\n");
  assert.equal(code, 2);
  assert.equal(
    stderr,
    `Error: Cannot read "db_creds.yaml":
  line 1, column 1: unknown key: write HOST in capitals
  line 3, column 1: unknown key, known are HOST, USER, PASSWORD, DATABASE, PORT, SSL_CA, KAFKA
`,
  );
});

test("a db_creds.yaml that names Kafka alone leaves MySQL to the program", async () => {
  const { code, stderr } = await withCreds("KAFKA:\n  BROKERS: 127.0.0.1:1\n", ["clean", "--data", "kafka alone"]);
  assert.equal(code, 1);
  assert.match(
    stderr,
    /^Using Kafka 127\.0\.0\.1:1 \(db_creds\.yaml\), topics pinterest\.\*\nError: Cannot reach Kafka/,
  );
  const half = await withCreds("USER: u\nKAFKA:\n  BROKERS: 127.0.0.1:1\n");
  assert.equal(half.code, 2);
  assert.match(half.stderr, /"HOST" is missing\n {2}line 1, column 1: "PASSWORD" is missing\n$/);
});

test("the environment replaces or overrides the file, and its problems show no secrets", async () => {
  const env = { PIPELINE_MYSQL_HOST: "127.0.0.1", PIPELINE_MYSQL_PASSWORD: "hunter2" };
  const cwd = join(folder.path, "bare");
  await mkdir(cwd);
  const lacking = { ...env, PIPELINE_KAFKA_SSL: "maybe", PIPELINE_KAFKA_SASL_PASSWORD: "hunter2" };
  const wrong = await run(["explore"], { cwd, env: lacking });
  assert.equal(wrong.code, 2);
  assert.equal(
    wrong.stderr,
    `Error: Cannot read the credentials of the environment:
  PIPELINE_KAFKA_SSL, KAFKA.SSL: expected true or false but found "maybe"
  "KAFKA.SASL.MECHANISM" is missing
  "KAFKA.SASL.USERNAME" is missing
  "KAFKA.BROKERS" is missing
  "USER" is missing
`,
  );
  const alone = { ...env, PIPELINE_MYSQL_USER: "u", PIPELINE_MYSQL_PORT: "1" };
  const away = await run(["explore"], { cwd, env: alone });
  assert.match(away.stderr, /Using MySQL 127\.0\.0\.1:1\/pinterest_data \(environment\)\nError: Cannot reach MySQL/);
  const path = join(folder.path, "env.yaml");
  await writeFile(path, "HOST: nowhere.invalid\nUSER: u\nPASSWORD: p\nPORT: 2\n", { mode: 0o600 });
  const over = await run(["explore", "--creds", path], { env: alone });
  assert.match(over.stderr, /Using MySQL 127\.0\.0\.1:1\/\S+ \(.*env\.yaml and environment\)/);
  const misspelt = await run(["explore"], { cwd, env: { PIPELINE_MYSQL_PASSWRD: "hunter2" } });
  assert.equal(misspelt.code, 2);
  assert.equal(
    misspelt.stderr,
    "Error: Cannot read the credentials of the environment: PIPELINE_MYSQL_PASSWRD: unknown variable; did you mean PIPELINE_MYSQL_PASSWORD?\n",
  );
  const unknown = await run(["explore"], { cwd, env: { PIPELINE_MYSQL_FOO: "hunter2" } });
  assert.match(unknown.stderr, /: PIPELINE_MYSQL_FOO: unknown variable, known are PIPELINE_MYSQL_HOST, .*_PASSWORD\n$/);
  assert.ok(!(unknown.stderr + wrong.stderr + away.stderr + over.stderr + misspelt.stderr).includes("hunter2"));
});

test("status of a missing folder creates nothing there", async () => {
  const data = join(folder.path, "nothing");
  const { code, stderr } = await run(["status", "--data", data]);
  assert.equal(code, 1);
  assert.match(stderr, /^Error: There is nothing in ".*nothing" yet; to start: .* --data .*nothing\n$/);
  assert.ok(!existsSync(data));
});

test("a db_creds.yaml that is not YAML is reported by line, without the text of the line", async () => {
  const { code, stderr } = await withCreds("HOST: h\nPASSWORD: 'hunter2\n");
  assert.equal(code, 2);
  assert.match(
    stderr,
    /^Error: Cannot read "db_creds.yaml": line \d, column \d+: not valid YAML \(\w+\): put a value with special characters in double quotes\n/,
  );
  assert.ok(!stderr.includes("hunter2"));
});

for (const [text, problem] of [
  [
    "PASSWORD: hunter2: x\n",
    "line 1, column 11: not valid YAML (BLOCK_AS_IMPLICIT_KEY): put a value with special characters in double quotes",
  ],
  ["KAFKA:\n\tBROKERS: hunter2\n", "line 2, column 1: not valid YAML (TAB_AS_INDENT): indent with spaces, not tabs"],
  ["PASSWORD: hunter2\nPASSWORD: hunter2\n", "line 2, column 1: not valid YAML (DUPLICATE_KEY): a key is there twice"],
  [
    "KAFKA:\n  PREFIX: hunter2\n SSL: true\n",
    "line 3, column 1: not valid YAML (BAD_INDENT): indent the keys of a part equally, or put a value with special characters in double quotes",
  ],
  [
    "PASSWORD: !hunter2\n",
    "line 1, column 11: not valid YAML (TAG_RESOLVE_FAILED): put a value with special characters in double quotes",
  ],
] as const) {
  test(`a db_creds.yaml that is not YAML is refused with a remedy: ${JSON.stringify(text)}`, async () => {
    const path = join(folder.path, "broken.yaml");
    await writeFile(path, text);
    await assert.rejects(readCredentials(path), (error: Error) => {
      assert.ok(error.message.includes(`: ${problem}`) || error.message.includes(`\n  ${problem}`), error.message);
      assert.ok(!error.message.includes("hunter2"));
      return true;
    });
  });
}

test("the error of an unreachable database has its address and no password", async () => {
  const { code, stderr } = await withCreds("HOST: 127.0.0.1\nUSER: u\nPASSWORD: hunter2\nPORT: 1\n");
  assert.equal(code, 1);
  assert.match(stderr, /Using MySQL 127\.0\.0\.1:1\/pinterest_data \(db_creds\.yaml\)\n/);
  assert.match(
    stderr,
    /Error: Cannot reach MySQL at 127\.0\.0\.1:1: .*ECONNREFUSED.*; is it running, and are HOST and PORT of your credentials right\?\n$/,
  );
  assert.ok(!stderr.includes("hunter2"));
});

test("the error of an unreachable broker has its address", async () => {
  const { code, stderr } = await withCreds(
    "HOST: 127.0.0.1\nUSER: u\nPASSWORD: hunter2\nKAFKA:\n  BROKERS: 127.0.0.1:1\n",
    ["clean", "--data", join(folder.path, "away")],
  );
  assert.equal(code, 1);
  assert.match(
    stderr,
    /Error: Cannot reach Kafka at 127\.0\.0\.1:1: .*ECONNREFUSED.*; is it running, and are BROKERS, SSL and SASL of KAFKA right in your credentials\?\n$/,
  );
});

test("a stopped command says how to continue, and a folder named up is no command", async () => {
  const creds = join(folder.path, "away.yaml");
  const text = "HOST: 127.0.0.1\nUSER: u\nPASSWORD: hunter2\nKAFKA:\n  BROKERS: 127.0.0.1:1\n";
  await writeFile(creds, text, { mode: 0o600 });
  const cleaning = start(["clean", "--creds", creds, "--data", "up"], { cwd: folder.path });
  await cleaning.said(/ right in your credentials[?] Waiting up to 60 s for it\n/);
  cleaning.kill("SIGINT");
  const { code, stderr } = await cleaning.done;
  assert.equal(code, 130);
  assert.match(stderr, /\nStopped; the same command continues where this one stopped\n$/);
});

test("a db_creds.yaml that others can read gives a warning", async () => {
  const text = "HOST: 127.0.0.1\nUSER: u\nPASSWORD: hunter2\nPORT: 1\n";
  const { stderr } = await withCreds(text, ["explore"], 0o644);
  assert.match(stderr, /^Warning: Others on this machine can read "db_creds.yaml": run chmod 600 "db_creds.yaml"\n/);
  const kept = await withCreds(text, ["explore"], 0o600);
  assert.ok(!kept.stderr.includes("Warning"));
});

test("a db_creds.yaml that git tracks or would add gives a warning", async (t) => {
  const cwd = join(folder.path, "repository");
  await mkdir(cwd);
  const git = (...args: string[]) => execFileSync("git", ["-C", cwd, ...args]);
  try {
    git("init", "-q");
  } catch {
    return t.skip("git is not installed");
  }
  const path = join(cwd, "db_creds.yaml");
  await writeFile(path, "HOST: 127.0.0.1\nUSER: u\nPASSWORD: p\nPORT: 1\n", { mode: 0o600 });
  const explore = async () => (await run(["explore", "--creds", path, "--wait", "0"])).stderr;
  const would = /^Warning: git would add ".*db_creds\.yaml", and with it the password: add its name to \.gitignore\n/;
  assert.match(await explore(), would);
  await writeFile(join(cwd, ".gitignore"), "db_creds.yaml\n");
  assert.doesNotMatch(await explore(), /Warning/);
  git("add", "-f", "db_creds.yaml");
  assert.match(
    await explore(),
    /^Warning: git tracks ".*db_creds\.yaml", and with it the password: run git rm --cached /,
  );
});

test("sample data is never created in the user's database", async () => {
  const { code, stderr } = await withCreds("HOST: 127.0.0.1\nUSER: u\nPASSWORD: p\n", ["up", "--rows", "10"]);
  assert.equal(code, 2);
  assert.equal(
    stderr,
    'Error: --rows creates sample data in the private database only, but "db_creds.yaml" names another one\n',
  );
});
