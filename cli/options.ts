/**
 * The commands and options. Parsing, help and completion derive from them.
 *
 * @module
 */

/** A command in the help texts. */
interface CommandEntry {
  /** The argument after its name. */
  takes?: string;
  text: string;
  /** A second paragraph of its help. */
  more?: string;
  /** Command lines to copy. */
  examples: [args: string, does: string][];
}

export const commands = {
  run: {
    text: "run post, clean and report in turn",
    more: "With --follow it then keeps posting and cleaning until it is stopped.",
    examples: [
      ["", "run all three stages once"],
      ["--rows 1000000", "run them with a million sample posts"],
      ["--follow --changes", "watch changes in MySQL arrive in the lake"],
    ],
  },
  post: {
    text: "post changed rows of MySQL to Kafka, exactly once",
    more: "It posts inserted, updated and deleted rows, and continues where the last run ended. If the binary log cannot be read, it warns and posts only new rows with keys above the last one.",
    examples: [
      ["post --follow", "keep posting until stopped"],
      ["post --full", "post every row again, and deletes for missing keys"],
    ],
  },
  clean: {
    text: "land and clean the topics, write Parquet and rejects",
    more: "The exit code is 3 if there are new rejects.",
    examples: [
      ["clean --follow", "keep cleaning until stopped"],
      ["clean --rebuild --dry-run", "show what an edit of sql/ would change"],
      ["clean --rebuild", "rebuild silver, rejects and gold after an edit of sql/"],
    ],
  },
  report: {
    text: "answer the questions of sql/answers, write the report page",
    examples: [["report --json", "print all answers as one JSON object"]],
  },
  up: {
    text: "start a private MySQL and Kafka and keep them running",
    more: "An empty database gets the sample posts. Later commands use these services until down.",
    examples: [["up --rows 100000", "start them with 100,000 sample posts"]],
  },
  down: { text: "stop the private services", examples: [["down", "stop what up started"]] },
  reset: {
    text: "delete the private services' data and the lake",
    more: "It asks before it deletes.",
    examples: [["reset --yes", "delete without asking"]],
  },
  status: {
    text: "show how far each table is, from MySQL to silver",
    more: "It starts nothing and changes nothing, and works beside all other commands.",
    examples: [
      ["status --watch", "show it every 2 s until stopped"],
      ["status --json", "print it as one JSON object"],
    ],
  },
  doctor: {
    text: "check the machine, settings, services and lake",
    more: "It says what to do about each problem, starts nothing and changes nothing. The exit code is 1 if something is missing.",
    examples: [
      ["doctor", "run it before the first run, or when something fails"],
      ["doctor --creds db_creds.yaml --json", "check your own MySQL and Kafka, print JSON"],
    ],
  },
  explore: {
    text: "profile the tables' columns, and show one post",
    more: "It reads a sample of rows and counts nulls, values, and what cleaning would change or reject.",
    examples: [
      ["explore --json", "the same as one JSON object"],
      ["explore --index 4711", "only the post with this key"],
    ],
  },
  emulate: {
    text: "post random rows like the course's script, or change rows",
    examples: [
      ["emulate --rate 5/s --limit 100", "post 100 posts, 5 a second"],
      ["emulate --changes", "insert, update and delete rows of the sample database"],
    ],
  },
  serve: {
    text: "serve the HTTP API and the live page",
    examples: [
      ["serve", "listen on http://127.0.0.1:8082/"],
      ["serve --host 0.0.0.0 --token-file token.txt", "accept other machines that send the token"],
    ],
  },
  eject: {
    takes: "DIR",
    text: "copy the files of sql/ into a folder for editing",
    examples: [["eject rules", "then use them: clean --rebuild --sql rules"]],
  },
  completion: {
    takes: "SHELL",
    text: "print a completion script for bash, zsh or fish",
    examples: [
      ["completion bash >> ~/.bashrc", "install it for bash"],
      ["completion zsh >> ~/.zshrc", "install it for zsh"],
      ["completion fish | source", "use it in this fish session"],
    ],
  },
} as const satisfies Record<string, CommandEntry>;

export type Command = keyof typeof commands;
export const commandNames = Object.keys(commands) as Command[];
export const commandEntries: Record<Command, CommandEntry> = commands;

/** The groups of commands in the help. */
export const groups: [title: string, commands: Command[]][] = [
  ["Pipeline", ["run", "post", "clean", "report"]],
  ["Services", ["up", "down", "reset"]],
  ["Inspect", ["status", "doctor", "explore"]],
  ["Emulation and HTTP", ["emulate", "serve"]],
  ["Customize", ["eject", "completion"]],
];

/** An option in the help texts. */
export interface Option {
  type: "boolean" | "string";
  short?: string;
  /** Placeholder of the value. */
  value?: string;
  text: string;
  /** The commands that accept it. Default: all. */
  only?: Command[];
  /** The commands that do not accept it. */
  not?: Command[];
}

export const options = {
  full: {
    type: "boolean",
    text: "post every row again, and a delete for each key that MySQL no longer has",
    only: ["run", "post"],
  },
  follow: { type: "boolean", text: "keep running until stopped", only: ["run", "post", "clean"] },
  watch: { type: "boolean", text: "refresh every 2 s until stopped", only: ["status"] },
  rebuild: {
    type: "boolean",
    text: "rebuild silver, rejects and gold from bronze with the present SQL",
    only: ["clean"],
  },
  "dry-run": {
    type: "boolean",
    text: "with --rebuild: show what it would change, and change nothing",
    only: ["clean"],
  },
  rows: { type: "string", value: "N", text: "number of sample posts (default: 11154)", only: ["run", "up"] },
  changes: {
    type: "boolean",
    text: "insert, update and delete rows of the sample database",
    only: ["run", "emulate"],
  },
  limit: { type: "string", value: "N", text: "number of posts or changes (default: until stopped)", only: ["emulate"] },
  rate: {
    type: "string",
    value: "N/s",
    text: "posts per second (N/s), minute (N/m) or hour (N/h) (default: a pause of 0 to 1 s after each)",
    only: ["emulate"],
  },
  seed: {
    type: "string",
    value: "N",
    text: "seed of the random choice, to repeat it (default: random, printed)",
    only: ["emulate"],
  },
  index: { type: "string", value: "N", text: "key of the post (default: a random one)", only: ["explore"] },
  host: { type: "string", value: "ADDRESS", text: "address to listen on (default: 127.0.0.1)", only: ["serve"] },
  port: {
    type: "string",
    value: "N",
    text: "port to listen on, 0 for a free one (default: 8082)",
    only: ["serve", "doctor"],
  },
  "token-file": {
    type: "string",
    value: "PATH",
    text: "file with the token that clients must send (or set PIPELINE_TOKEN)",
    only: ["serve"],
  },
  "any-prefix": {
    type: "boolean",
    text: "accept posts to topics of any prefix, such as 0a1b2c.pin",
    only: ["serve"],
  },
  yes: { type: "boolean", text: "do not ask", only: ["reset"] },
  sql: {
    type: "string",
    value: "DIR",
    text: "folder with edited SQL files (see eject)",
    only: ["run", "clean", "serve", "report", "status"],
  },
  data: {
    type: "string",
    value: "DIR",
    text: "folder of the private services and of the lake, DIR/lake (default: data)",
    not: ["completion"],
  },
  creds: {
    type: "string",
    value: "PATH",
    text: "credentials file (default: db_creds.yaml, if it exists)",
    not: ["down", "reset", "completion"],
  },
  prefix: { type: "string", value: "NAME", text: "prefix of the topics (default: pinterest)", not: ["completion"] },
  zookeeper: {
    type: "boolean",
    text: "use a private Kafka 3.9 with ZooKeeper, with its data and lake in DIR/zookeeper",
    not: ["completion"],
  },
  wait: {
    type: "string",
    value: "SECONDS",
    text: "how long to wait for an unavailable service or a locked table (default: 60)",
    not: ["completion"],
  },
  json: { type: "boolean", text: "print the result as one JSON object", not: ["completion"] },
  quiet: { type: "boolean", text: "show no progress", not: ["completion"] },
  help: { type: "boolean", short: "h", text: "show help; after a command, help of that command" },
  version: { type: "boolean", short: "v", text: "show the version" },
  licences: { type: "boolean", text: "show the licences of all that the executable contains" },
} as const satisfies Record<string, Option>;

export type OptionName = keyof typeof options;
export const optionNames = Object.keys(options) as OptionName[];

/** Whether a command accepts an option. */
export function takes(command: Command, name: OptionName): boolean {
  const { only, not } = options[name] as Option;
  return only ? only.includes(command) : !not?.includes(command);
}

/** The options that every command has, and those of single commands. */
export const commonOptions = optionNames.filter((name) => !("only" in options[name]));
export const specialOptions = optionNames.filter((name) => "only" in options[name]);

/** An option as it is typed: `-h, --help`, `--rows N`. */
export function optionForm(name: OptionName): string {
  const { short, value } = options[name] as Option;
  return `${short ? `-${short}, ` : ""}--${name}${value ? ` ${value}` : ""}`;
}

/** What a command does, as a sentence. */
export function sentenceOf(command: Command): string {
  const { text } = commandEntries[command];
  return `${text.charAt(0).toUpperCase()}${text.slice(1)}.`;
}
