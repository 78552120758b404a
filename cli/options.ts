/**
 * The commands and options, defined once: parsing, help and completion derive from them.
 *
 * @module
 */

/** A command, for people to read. */
interface CommandEntry {
  /** What follows its name. */
  takes?: string;
  text: string;
  /** What one should know before using it. */
  more?: string;
  /** Arguments of command lines to copy, each with what it does. */
  examples: [args: string, what: string][];
}

export const commands = {
  run: {
    text: "post, clean and report, one after the other",
    more: "This is what runs without a command. With --follow it then goes on posting and cleaning until it is stopped.",
    examples: [
      ["", "the whole job"],
      ["--rows 1000000", "the same with a million sample posts"],
      ["--follow --changes", "watch changes in MySQL arrive in silver"],
    ],
  },
  post: {
    text: "post what was inserted, updated or deleted in MySQL to Kafka, exactly once",
    more: "It goes on where the last run ended. Where the database's log cannot be read, it warns, and posts only new rows with keys above the last one.",
    examples: [
      ["post --follow", "go on until stopped"],
      ["post --full", "post every row again, and a delete for every key that MySQL does not have"],
    ],
  },
  clean: {
    text: "land the topics, clean them, write Parquet and rejects",
    more: "It ends with exit code 3 where it found new rejects.",
    examples: [
      ["clean --follow", "go on until stopped"],
      ["clean --rebuild --dry-run --sql rules", "show what edited rules would change, and change nothing"],
      ["clean --rebuild --sql rules", "make silver, rejects and gold again with them"],
    ],
  },
  report: {
    text: "answer the questions of sql/answers from the clean rows",
    examples: [["report --json", "all answers as one JSON object"]],
  },
  up: {
    text: "start MySQL and Kafka here and keep them running",
    more: "An empty database gets the sample posts. Later commands use these services.",
    examples: [["up --rows 100000", "with so many sample posts"]],
  },
  down: { text: "stop what up started", examples: [["down", ""]] },
  reset: {
    text: "delete the data of these services and the lake",
    more: "It asks before it deletes.",
    examples: [["reset --yes", "without the question"]],
  },
  status: {
    text: "show how far each table is, from MySQL to silver",
    more: "It starts nothing and changes nothing, and works beside all other commands.",
    examples: [
      ["status --watch", "again every 2 s, until stopped"],
      ["status --json", "the same as one JSON object"],
    ],
  },
  doctor: {
    text: "check what is needed, and say what to do",
    more: "It starts nothing and changes nothing. It ends with exit code 1 where something is missing.",
    examples: [
      ["doctor", "before the first run, or when something fails"],
      ["doctor --creds db_creds.yaml --json", "your own MySQL and Kafka, as one JSON object"],
    ],
  },
  explore: {
    text: "show the columns of the tables from a sample of rows, and one post",
    more: "It counts nulls, values, and what cleaning would change or reject.",
    examples: [
      ["explore --json", "the same as one JSON object"],
      ["explore --index 4711", "only the post with this key"],
    ],
  },
  emulate: {
    text: "post random rows as users would, or change rows with --changes",
    examples: [
      ["emulate --rate 5/s --limit 100", "100 posts, 5 a second"],
      ["emulate --changes", "insert, update and delete rows in the program's own database"],
    ],
  },
  serve: {
    text: "HTTP API for posts, and the live page, until stopped",
    examples: [
      ["serve", "at http://127.0.0.1:8082/"],
      ["serve --host 0.0.0.0 --token-file token.txt", "for others, who must show the token"],
    ],
  },
  eject: {
    takes: "DIR",
    text: "write the files of sql/ into a folder, to edit them",
    examples: [["eject rules", "then: clean --rebuild --sql rules"]],
  },
  completion: {
    takes: "SHELL",
    text: "print a script that completes commands and options in bash, zsh or fish",
    examples: [
      ["completion bash >> ~/.bashrc", "for bash"],
      ["completion zsh >> ~/.zshrc", "for zsh"],
      ["completion fish | source", "for fish, until it ends"],
    ],
  },
} as const satisfies Record<string, CommandEntry>;

export type Command = keyof typeof commands;
export const commandNames = Object.keys(commands) as Command[];
export const commandEntries: Record<Command, CommandEntry> = commands;

/** The commands as the help groups them. */
export const groups: [title: string, commands: Command[]][] = [
  ["The job", ["run", "post", "clean", "report"]],
  ["Services", ["up", "down", "reset"]],
  ["Look", ["status", "doctor", "explore"]],
  ["Try", ["emulate", "serve"]],
  ["Edit", ["eject", "completion"]],
];

/** An option, for people to read. */
export interface Option {
  type: "boolean" | "string";
  short?: string;
  /** What stands for the value in the help text. */
  value?: string;
  text: string;
  /** The commands that take it; all when absent. */
  only?: Command[];
  /** The commands that don't take it; the help need not say so. */
  not?: Command[];
}

export const options = {
  full: {
    type: "boolean",
    text: "post every row again, and a delete for every key that MySQL does not have",
    only: ["run", "post"],
  },
  follow: { type: "boolean", text: "go on until stopped", only: ["run", "post", "clean"] },
  watch: { type: "boolean", text: "show it again every 2 s, until stopped", only: ["status"] },
  rebuild: {
    type: "boolean",
    text: "make silver, rejects and gold again from bronze, with sql/ as it is",
    only: ["clean"],
  },
  "dry-run": {
    type: "boolean",
    text: "with --rebuild: show what it would change, and change nothing",
    only: ["clean"],
  },
  rows: { type: "string", value: "N", text: "posts of sample data to have (default: 11154)", only: ["run", "up"] },
  changes: {
    type: "boolean",
    text: "insert, update and delete rows in the program's own database",
    only: ["run", "emulate"],
  },
  limit: { type: "string", value: "N", text: "posts or changes to make (default: until stopped)", only: ["emulate"] },
  rate: {
    type: "string",
    value: "N/s",
    text: "so many a second, minute (N/m) or hour (N/h) (default: a pause of 0 to 1 s after each)",
    only: ["emulate"],
  },
  seed: {
    type: "string",
    value: "N",
    text: "chooses the posts or changes (default: a random one, which is shown)",
    only: ["emulate"],
  },
  index: { type: "string", value: "N", text: "the post to show (default: a random one)", only: ["explore"] },
  host: { type: "string", value: "ADDRESS", text: "where to listen (default: 127.0.0.1)", only: ["serve"] },
  port: {
    type: "string",
    value: "N",
    text: "port to listen on; 0: a free one (default: 8082)",
    only: ["serve", "doctor"],
  },
  "token-file": {
    type: "string",
    value: "PATH",
    text: "file with the token that clients must show (or PIPELINE_TOKEN in the environment)",
    only: ["serve"],
  },
  "any-prefix": {
    type: "boolean",
    text: "accept topics of any prefix, such as 0a1b2c.pin, as this program's",
    only: ["serve"],
  },
  yes: { type: "boolean", text: "do not ask", only: ["reset"] },
  sql: {
    type: "string",
    value: "DIR",
    text: "folder with SQL files to use before the program's own",
    only: ["run", "clean", "serve", "report", "status"],
  },
  data: {
    type: "string",
    value: "DIR",
    text: "the program's folder: services, and the lake at DIR/lake (default: data)",
    not: ["completion"],
  },
  creds: {
    type: "string",
    value: "PATH",
    text: "credentials (default: db_creds.yaml where there is one)",
    not: ["down", "reset", "completion"],
  },
  prefix: { type: "string", value: "NAME", text: "prefix of the topics (default: pinterest)", not: ["completion"] },
  zookeeper: {
    type: "boolean",
    text: "use a Kafka 3.9 with ZooKeeper instead of Kafka 4; services and lake lie at DIR/zookeeper then",
    not: ["completion"],
  },
  wait: {
    type: "string",
    value: "SECONDS",
    text: "how long to wait for a service that is away, or a table that is locked (default: 60)",
    not: ["completion"],
  },
  json: { type: "boolean", text: "print the result as one JSON object", not: ["completion"] },
  quiet: { type: "boolean", text: "no progress", not: ["completion"] },
  help: { type: "boolean", short: "h", text: "help; with a command, that of the command" },
  version: { type: "boolean", short: "v", text: "the version" },
  licences: { type: "boolean", text: "the licences of what is inside (of the executable)" },
} as const satisfies Record<string, Option>;

export type OptionName = keyof typeof options;
export const optionNames = Object.keys(options) as OptionName[];

/** Whether a command takes an option. */
export function takes(command: Command, name: OptionName): boolean {
  const { only, not } = options[name] as Option;
  return only ? only.includes(command) : !not?.includes(command);
}
