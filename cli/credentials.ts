/**
 * Reads the settings of MySQL and Kafka from `db_creds.yaml` and the environment.
 *
 * @module
 */

import { execFile } from "node:child_process";
import { existsSync } from "node:fs";
import { readFile, stat } from "node:fs/promises";
import { isIP } from "node:net";
import { basename, dirname } from "node:path";
import { promisify } from "node:util";
import {
  type Document,
  type ErrorCode,
  isMap,
  isScalar,
  isSeq,
  LineCounter,
  type Node,
  parseDocument,
  type YAMLMap,
} from "yaml";
import type { MysqlSettings } from "../db_conn.ts";
import type { KafkaSettings } from "../kafka/settings.ts";
import { fileTrouble, UsageError } from "../runtime/errors.ts";
import { nearest } from "./nearest.ts";

/** The settings. A service without settings is the program's private one. */
export interface Credentials {
  mysql?: MysqlSettings;
  kafka?: KafkaSettings;
  /** Their source for messages: the file, the environment or both. */
  from: string;
  /** Risks of the file: its mode, and git. */
  warnings: string[];
}

/** The values that a key accepts. `secret` values are never shown, not even wrong ones. */
interface Rule {
  type: "text" | "host" | "secret" | "port" | "count" | "list" | "file" | "switch" | "map";
  required?: true;
  choices?: string[];
  keys?: Record<string, Rule>;
}

const rules: Record<string, Rule> = {
  HOST: { type: "host", required: true },
  USER: { type: "text", required: true },
  PASSWORD: { type: "secret", required: true },
  DATABASE: { type: "text" },
  PORT: { type: "port" },
  SSL_CA: { type: "file" },
  KAFKA: {
    type: "map",
    keys: {
      BROKERS: { type: "list", required: true },
      PREFIX: { type: "text" },
      PARTITIONS: { type: "count" },
      REPLICATION_FACTOR: { type: "count" },
      SSL: { type: "switch" },
      SSL_CA: { type: "file" },
      SASL: {
        type: "map",
        keys: {
          MECHANISM: { type: "text", required: true, choices: ["plain", "scram-sha-256", "scram-sha-512"] },
          USERNAME: { type: "text", required: true },
          PASSWORD: { type: "secret", required: true },
        },
      },
    },
  },
};

type Value = string | number | boolean | string[] | { [key: string]: Value };

/** Environment variables and their keys: `PIPELINE_KAFKA_SASL_PASSWORD` is KAFKA, SASL, PASSWORD. */
const variableNames = (known: Record<string, Rule> = rules, above: string[] = []): [string, string[]][] =>
  Object.entries(known).flatMap(([key, { keys }]) => {
    const path = [...above, key];
    if (keys) return variableNames(keys, path);
    return [[["PIPELINE", ...(path[0] === "KAFKA" ? [] : ["MYSQL"]), ...path].join("_"), path]];
  });

/** The variables that are set, misspelt ones too. */
const givenVariables = (): string[] => Object.keys(process.env).filter((name) => /^PIPELINE_(MYSQL|KAFKA)_/.test(name));

/** The settings of the private Kafka. */
export const ownKafka = (brokers: string[]): KafkaSettings => ({
  ...{ brokers, prefix: "pinterest", partitions: 1, replicationFactor: 1 },
});

/** Reads the named file or the one in the working folder, and the environment; nothing if there are no settings. */
export async function findCredentials(named: string | undefined): Promise<Credentials | undefined> {
  const path = named ?? (existsSync("db_creds.yaml") ? "db_creds.yaml" : undefined);
  return path === undefined && givenVariables().length === 0 ? undefined : readCredentials(path);
}

/** The document, and the problems found so far. */
interface Reading {
  document: Document;
  problems: string[];
  /** Environment variables by the dotted name of their key. */
  variables: Map<string, string>;
  place: (offset: number) => string;
  /** Files that are still being read. */
  files: Promise<void>[];
}

/**
 * Reads a `db_creds.yaml`, if any, and the environment, which overrides it.
 *
 * @throws `UsageError` that lists every problem with its line and column or its variable, and shows no secret
 */
export async function readCredentials(path: string | undefined): Promise<Credentials> {
  const reading = parse(path === undefined ? "" : await readText(path));
  const { problems, document, variables, files } = reading;
  let values: Record<string, Value> = {};
  if (problems.length === 0) {
    applyEnvironment(reading);
    if (isMap(document.contents)) values = readMap(reading, document.contents, rules, "");
    else if (path !== undefined) problems.push("line 1, column 1: expected keys such as HOST, USER and PASSWORD");
  }
  await Promise.all(files);
  const { PREFIX: prefix } = (values.KAFKA ?? {}) as Record<string, Value>;
  if (prefix !== undefined && !isPrefix(prefix as string)) problems.push(`KAFKA.PREFIX: ${prefixRule}`);
  if (problems.length > 0) {
    const what = path === undefined ? "the credentials of the environment" : `"${path}"`;
    throw new UsageError(`Cannot read ${what}:${problems.length === 1 ? " " : "\n  "}${problems.join("\n  ")}`);
  }
  return {
    ...toSettings(values),
    from: [...(path === undefined ? [] : [path]), ...(variables.size > 0 ? ["environment"] : [])].join(" and "),
    warnings: path === undefined ? [] : await fileWarnings(path),
  };
}

/** What to do about errors of YAML: `quotes` for those that are not in the map. */
const quotes = "put a value with special characters in double quotes";
const yamlRemedies: Partial<Record<ErrorCode, string>> = {
  BAD_DQ_ESCAPE: "write a backslash in double quotes twice",
  BAD_INDENT: `indent the keys of a part equally, or ${quotes}`,
  DUPLICATE_KEY: "a key is there twice",
  MULTIPLE_DOCS: "remove the lines with three dashes",
  TAB_AS_INDENT: "indent with spaces, not tabs",
};

function parse(text: string): Reading {
  const lines = new LineCounter();
  const place = (offset: number) => {
    const { line, col } = lines.linePos(offset);
    return `line ${line}, column ${col}`;
  };
  // Pretty errors would quote the line, and with it a password.
  const document = parseDocument(text, { lineCounter: lines, prettyErrors: false });
  // A warning is as bad: of a password that begins with ! nothing is left.
  const problems = [...document.errors, ...document.warnings].map(
    ({ pos, code }) => `${place(pos[0])}: not valid YAML (${code}): ${yamlRemedies[code] ?? quotes}`,
  );
  return { document, problems, variables: new Map(), place, files: [] };
}

/** Replaces values of the file by environment variables. */
function applyEnvironment({ document, problems, variables }: Reading): void {
  const known = new Map(variableNames());
  for (const name of givenVariables()) {
    const keys = known.get(name);
    if (!keys) {
      const near = nearestVariable(name, [...known.keys()]);
      problems.push(
        `${name}: unknown variable${near ? `; did you mean ${near}?` : `, known are ${[...known.keys()].join(", ")}`}`,
      );
      continue;
    }
    const text = process.env[name] as string;
    variables.set(keys.join("."), name);
    document.contents ??= document.createNode({});
    try {
      if (document.hasIn(keys)) document.deleteIn(keys);
      document.setIn(keys, document.createNode(/^(true|false)$/.test(text) ? text === "true" : text));
    } catch {
      // A parent key of the file is not a map, which readMap reports.
    }
  }
}

/** The variable of the same service that an unknown one probably means. */
function nearestVariable(name: string, known: string[]): string | undefined {
  const service = name.slice(0, "PIPELINE_MYSQL_".length);
  const names = known.filter((other) => other.startsWith(service)).map((other) => other.slice(service.length));
  const near = nearest(name.slice(service.length), names);
  return near && `${service}${near}`;
}

function readMap(reading: Reading, map: YAMLMap, known: Record<string, Rule>, above: string): Record<string, Value> {
  const { problems, variables, place } = reading;
  const values: Record<string, Value> = {};
  for (const { key, value } of map.items) {
    const name = isScalar(key) ? String(key.value) : typeof key === "string" ? key : "";
    const rule = known[name];
    const at = variables.get(`${above}${name}`) ?? place((key as Node).range?.[0] ?? 0);
    if (!rule) {
      // Not shown otherwise: it may be a misplaced password.
      const shown = /^[A-Z_]+$/.test(name) ? ` "${above}${name}"` : "";
      problems.push(`${at}: unknown key${shown}${meant(name, Object.keys(known))}`);
      continue;
    }
    const read = readValue(reading, value as Node | null, rule, { name: `${above}${name}`, at });
    if (read !== undefined) values[name] = read;
  }
  // With a KAFKA part alone, MySQL is the private one.
  const isKafkaAlone = known === rules && map.has("KAFKA") && map.items.length === 1;
  const given = map.items.map(({ key }) => (isScalar(key) ? String(key.value) : String(key)).toUpperCase());
  for (const [name, rule] of Object.entries(known)) {
    if (rule.required && !given.includes(name) && !isKafkaAlone) {
      const at = map.range ? `${place(map.range[0])}: ` : "";
      problems.push(`${at}"${above}${name}" is missing`);
    }
  }
  return values;
}

/** The key that an unknown one probably means. */
function meant(name: string, known: string[]): string {
  const capitals = name.toUpperCase();
  if (known.includes(capitals)) return `: write ${capitals} in capitals`;
  const near = nearest(capitals, known);
  return near ? `; did you mean ${near}?` : `, known are ${known.join(", ")}`;
}

function readValue(
  reading: Reading,
  node: Node | null,
  rule: Rule,
  { name, at: keyPlace }: { name: string; at: string },
): Value | undefined {
  const at = node?.range ? reading.place(node.range[0]) : keyPlace;
  const problem: Problem = (expected, found) => {
    const but = found === undefined ? "" : ` but found "${found}"`;
    reading.problems.push(`${at}, ${name}: expected ${expected}${but}`);
    return undefined;
  };
  if (rule.type === "map") {
    if (!isMap(node)) return problem("keys below it, each on its own line");
    return readMap(reading, node, rule.keys ?? {}, `${name}.`);
  }
  if (rule.type === "list") return readBrokers(node, problem);
  if (!isScalar(node) || node.value === null) return problem(rule.type === "secret" ? 'text ("" for none)' : "a value");
  // YAML reads a password of digits as a number, without its leading zeros; the source has them.
  const text = typeof node.value === "string" ? node.value : (node.source ?? String(node.value));
  if (rule.type === "switch") return typeof node.value === "boolean" ? node.value : problem("true or false", text);
  if (rule.type !== "file") return scalars[rule.type](text, problem, rule);
  const holder: { [key: string]: Value } = {};
  const read = readFile(text, "utf8").then(
    (pem) => void Object.assign(holder, { pem }),
    (error: unknown) => void reading.problems.push(`${at}, ${name}: ${fileTrouble(error, text)}`),
  );
  reading.files.push(read);
  return holder;
}

/** Adds a problem, and returns no value. */
type Problem = (expected: string, found?: string) => undefined;

function readBrokers(node: Node | null, problem: Problem): string[] | undefined {
  const items = isSeq(node) ? node.items : isScalar(node) ? [node] : [];
  const brokers = items.flatMap((i) => (isScalar(i) && typeof i.value === "string" ? i.value.split(/\s*,\s*/) : [""]));
  const wrong = brokers.find((broker) => !/^(\[[0-9a-fA-F:]+\]|[^\s:/]+):\d{1,5}$/.test(broker));
  if (brokers.length > 0 && wrong === undefined) return brokers;
  return problem('brokers as "host:port"', wrong?.includes("@") ? undefined : wrong || undefined);
}

const whole = (most: number, kind: string) => (text: string, problem: Problem) =>
  /^\d{1,5}$/.test(text) && Number(text) >= 1 && Number(text) <= most ? Number(text) : problem(kind, text);

/** Readers of scalar values, by the type of the rule. */
const scalars = {
  secret: (text: string) => text,
  port: whole(65_535, "a port number"),
  count: whole(10_000, "a whole number above 0"),
  host(text: string, problem: Problem) {
    if (text === "") return problem("a value", text);
    if (isIP(text) !== 0 || !/[\s:/@[\]]/.test(text)) return text;
    const wanted = "a host name or address alone, without scheme, and its port as PORT";
    // The text before an @ may be a password.
    return text.includes("@") ? problem(wanted) : problem(wanted, text);
  },
  text(text: string, problem: Problem, { choices }: Rule) {
    if (text === "") return problem("a value", text);
    if (!choices) return text;
    const choice = text.toLowerCase();
    return choices.includes(choice) ? choice : problem(choices.join(" or "), text);
  },
};

/** The settings of valid values. */
function toSettings(values: Record<string, Value>): Pick<Credentials, "mysql" | "kafka"> {
  const kafka = values.KAFKA as Record<string, Value> | undefined;
  const sasl = kafka?.SASL as Record<string, string> | undefined;
  const ca = (value: Value | undefined) => (value as { pem: string } | undefined)?.pem;
  const mysqlCa = ca(values.SSL_CA);
  const kafkaCa = ca(kafka?.SSL_CA);
  return {
    ...(values.HOST !== undefined && {
      mysql: {
        host: values.HOST as string,
        port: (values.PORT as number | undefined) ?? 3306,
        user: values.USER as string,
        password: values.PASSWORD as string,
        database: (values.DATABASE as string | undefined) ?? "pinterest_data",
        ...(mysqlCa !== undefined && { ca: mysqlCa }),
      },
    }),
    ...(kafka && {
      kafka: {
        brokers: kafka.BROKERS as string[],
        prefix: (kafka.PREFIX as string | undefined) ?? "pinterest",
        partitions: (kafka.PARTITIONS as number | undefined) ?? 1,
        replicationFactor: (kafka.REPLICATION_FACTOR as number | undefined) ?? 1,
        ...(kafkaCa !== undefined ? { ssl: { ca: kafkaCa } } : kafka.SSL === true ? { ssl: true as const } : {}),
        ...(sasl && {
          sasl: {
            mechanism: sasl.MECHANISM as "plain",
            username: sasl.USERNAME as string,
            password: sasl.PASSWORD as string,
          },
        }),
      },
    }),
  };
}

/** Whether a topic prefix is valid. The table's name is appended, and Kafka allows 249 characters. */
export const isPrefix = (prefix: string): boolean => /^[A-Za-z0-9._-]{1,200}$/.test(prefix) && !/^\.+$/.test(prefix);
export const prefixRule = "a topic prefix is 1 to 200 letters, digits, dots, dashes or underscores";

const readText = (path: string): Promise<string> =>
  readFile(path, "utf8").catch((error: NodeJS.ErrnoException) => {
    if (error.code === "ENOENT") {
      throw new UsageError(`Cannot read "${path}": the file does not exist; copy db_creds.example.yaml`);
    }
    throw new UsageError(`Cannot read "${path}": ${error.message}`);
  });

async function fileWarnings(path: string): Promise<string[]> {
  const warnings = [];
  const { mode } = await stat(path);
  if (mode & 0o077) warnings.push(`Others on this machine can read "${path}": run chmod 600 "${path}"`);
  const git = (...args: string[]) =>
    promisify(execFile)("git", ["-C", dirname(path), ...args, "--", basename(path)]).then(
      () => true,
      () => false,
    );
  if (await git("ls-files", "--error-unmatch")) {
    warnings.push(`git tracks "${path}", and with it the password: run git rm --cached "${path}"`);
  } else if ((await git("ls-files")) && !(await git("check-ignore", "-q"))) {
    warnings.push(`git would add "${path}", and with it the password: add its name to .gitignore`);
  }
  return warnings;
}
