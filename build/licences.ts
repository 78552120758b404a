/**
 * Collects the licences of everything in the executable: `npm run licences` writes dist/LICENCES.txt and, for the
 * complete executable, dist/LICENCES-complete.txt. licences.json lists the allowed ones, and texts that no package has.
 *
 * @module
 */
import { existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { basename, join } from "node:path";
import { fileURLToPath } from "node:url";
import { unzipSync } from "fflate";
import { bundle } from "./bundle.ts";
import rules from "./licences.json" with { type: "json" };
import { fetchNode } from "./packages.ts";
import { filesBelow, readPins } from "./pins.ts";
import { collectServices, type ServiceFolder } from "./services.ts";

/** A licensed part of the executable. */
export interface Part {
  name: string;
  version: string;
  /** An SPDX expression. */
  licence: string;
  /** The licence and notices; at least one text. */
  texts: string[];
  /** A remark, such as where the source is. */
  note?: string;
}

const root = fileURLToPath(new URL("..", import.meta.url));
const isLegal = (path: string) =>
  /^(licen[cs]e|notice|copying|copyright)\b(?!.*[.](class|[cm]?[jt]s|json)$)/i.test(basename(path));
const byHand: Record<string, { licence: string; copyright: string }[]> = rules.withoutText;
const notes: Record<string, string> = rules.notes;

/**
 * The text that is distributed with the executable. `node` is a folder of {@link fetchNode}, `services` those of
 * {@link collectServices} in the complete executable, `inputs` the files of its bundle.
 *
 * @throws `Error` that lists all parts whose licence is not allowed
 */
export async function licences(options: {
  node: string;
  services?: ServiceFolder[];
  inputs: string[];
}): Promise<string> {
  const { node, services = [], inputs } = options;
  const also = rules.alsoInside.map((name) => `node_modules/${name}/package.json`);
  const program = [...npmParts(root, [...inputs, ...also]), nodePart(node)];
  checkAllowed(program, rules.allowed.program);
  const served = serviceParts(services);
  checkAllowed(served, rules.allowed.services);
  return format([...program, ...served]);
}

interface Manifest {
  name: string;
  version: string;
  license?: string;
  optionalDependencies?: Record<string, string>;
  os?: string[];
  cpu?: string[];
  libc?: string[];
}

const manifestOf = (folder: string) => JSON.parse(readFileSync(join(folder, "package.json"), "utf8")) as Manifest;

/**
 * The npm packages of files below `folder`, and their native libraries for Linux x86-64; sorted by name.
 *
 * @throws `Error` if a package has no licence text
 */
export function npmParts(folder: string, inputs: string[]): Part[] {
  const found = inputs.flatMap((path) => /^(.*\bnode_modules\/(?:@[^/]+\/)?[^/]+)\//.exec(path)?.[1] ?? []);
  const packages = [...new Set(found)].map((path) => join(folder, path));
  const nativesOf = (path: string) =>
    Object.keys(manifestOf(path).optionalDependencies ?? {})
      .map((name) => join(folder, "node_modules", name))
      .filter((native) => existsSync(native) && isForTarget(manifestOf(native)));
  const natives = new Set(packages.flatMap(nativesOf));
  const parts = packages
    .filter((path) => !natives.has(path))
    .flatMap((path) => {
      const opener = npmPart(path);
      // A native library is built in the repository of the package that loads it.
      return [opener, ...nativesOf(path).map((native) => npmPart(native, opener.texts))];
    });
  return [...new Map(parts.map((part) => [`${part.name} ${part.version}`, part])).values()].sort((a, b) =>
    a.name < b.name ? -1 : 1,
  );
}

const isForTarget = ({ os, cpu, libc }: Manifest) =>
  os?.includes("linux") && cpu?.includes("x64") && (!libc || libc.includes("glibc"));

function npmPart(folder: string, otherwise: string[] = []): Part {
  const { name, version, license } = manifestOf(folder);
  const own = filesBelow(folder)
    .filter(
      (file) =>
        !file.includes("node_modules/") && (file.startsWith("licenses/") || (isLegal(file) && !file.includes("/"))),
    )
    .map((file) => readFileSync(join(folder, file), "utf8"));
  const texts = [own, textsByHand(name), otherwise].find((list) => list.length > 0);
  return part({ name, version, licence: license ?? "none", texts: texts ?? [] });
}

function nodePart(folder: string): Part {
  const { version } = readPins().node;
  return part({ name: "Node.js", version, licence: "MIT", texts: [readFileSync(join(folder, "LICENSE"), "utf8")] });
}

/** A part, with its note. */
function part({ name, version, licence, texts }: Omit<Part, "note">): Part {
  if (texts.length === 0)
    throw new Error(`Cannot find a licence text in "${name}" ${version}: add it to withoutText of build/licences.json`);
  const note = notes[name]?.replaceAll("{version}", version.replace(/-.*/, ""));
  return { name, version, licence, texts, ...(note && { note }) };
}

const textsByHand = (name: string) =>
  (byHand[name] ?? []).map(({ licence, copyright }) => {
    const text = readFileSync(new URL(`./licences/${licence}.txt`, import.meta.url), "utf8");
    return `${copyright}\n\n${text}`;
  });

function serviceParts(services: ServiceFolder[]): Part[] {
  const folders = Object.fromEntries(services.map(({ name, folder }) => [name, folder]));
  const { kafka, mariadb, java } = folders;
  if (!kafka || !mariadb || !java) return [];
  const legal = join(java, "legal");
  const texts = [...new Set(filesBelow(legal).map((file) => readFileSync(join(legal, file), "utf8")))];
  const [gpl, exception] = readFileSync(join(legal, "java.base/LICENSE"), "utf8").split('"CLASSPATH" EXCEPTION');
  if (!gpl || !exception) throw new Error("Cannot find the GPL in the LICENSE of Java");
  checkVersion(
    "Java",
    rules.java.version,
    /JAVA_VERSION="(.*)"/.exec(readFileSync(join(java, "release"), "utf8"))?.[1],
  );
  const pom = readFileSync(join(root, "local/pom.xml"), "utf8");
  checkVersion("MariaDB", rules.mariadb.version, /<mariadb.version>(.*)</.exec(pom)?.[1]);
  return [
    ...filesBelow(join(kafka, "libs")).map((file) => jarPart(file, readFileSync(join(kafka, "libs", file)))),
    { name: "MariaDB", texts: [gpl], ...rules.mariadb },
    { name: "OpenJDK", texts, ...rules.java },
  ];
}

function checkVersion(name: string, told: string, found: string | undefined) {
  if (!found || told.replace(/[+].*/, "") !== found)
    throw new Error(
      `build/licences.json says where the source of ${name} "${told}" is, but the executable contains "${found}"`,
    );
}

/**
 * The name, version and licence of a jar, from its file name.
 *
 * @throws `Error` if licences.json does not list the jar
 */
export function readJarName(file: string): Pick<Part, "name" | "version" | "licence"> {
  const [, name = file, version = ""] = /^(.+?)-(\d[\d.]*(?:-\d+)?)[.]jar$/.exec(file) ?? [];
  const known = Object.entries(rules.jars).find(([, names]) => names.includes(name))?.[0];
  const licence = known ?? byHand[name]?.map((text) => text.licence).join(" AND ");
  if (!licence) throw new Error(`Cannot find the licence of "${file}": add it to build/licences.json`);
  return { name, version, licence };
}

/** A jar with its licence texts, from the jar or from licences.json. */
export function jarPart(file: string, jar: Uint8Array): Part {
  const known = readJarName(file);
  const inside = Object.values(unzipSync(jar, { filter: (entry) => isLegal(entry.name) }));
  const own = inside.map((bytes) => new TextDecoder().decode(bytes));
  return part({ ...known, texts: own.length > 0 ? own : textsByHand(known.name) });
}

/**
 * Refuses parts that may not be redistributed.
 *
 * @throws `Error` that lists each part whose licence is not among the allowed SPDX ids
 */
export function checkAllowed(parts: Part[], allowed: string[]): void {
  const isAllowed = (licence: string): boolean => {
    const expression = licence.replace(/^[(](.*)[)]$/, "$1");
    if (allowed.includes(expression)) return true;
    for (const [word, holds] of [
      [" AND ", "every"],
      [" OR ", "some"],
    ] as const)
      if (expression.includes(word)) return expression.split(word)[holds](isAllowed);
    return false;
  };
  const refused = parts.filter(({ licence }) => !isAllowed(licence));
  if (refused.length > 0)
    throw new Error(
      `Cannot put into the executable, since build/licences.json allows only ${allowed.join(", ")}:
${refused.map(({ name, version, licence }) => `  ${name} ${version}: ${licence}`).join("\n")}`,
    );
}

/** All parts by licence, then each text once, with the parts that it applies to. */
export function format(parts: Part[]): string {
  const byLicence = grouped(parts, ({ licence }) => licence);
  const list = [...byLicence].map(([licence, some]) => `${licence}:\n${some.map((p) => `  ${titleOf(p)}`).join("\n")}`);
  const tidy = (text: string) => text.replaceAll("\r\n", "\n").trim();
  const byText = grouped(parts, ({ texts, note = "" }) => [note, ...new Set(texts.map(tidy))].join("\n\n").trim());
  const sections = [...byText].map(([text, some]) => `${line}\n${some.map(titleOf).join("\n")}\n${line}\n\n${text}`);
  return `${[own(), ...list, ...sections].join("\n\n")}\n`;
}

function grouped(parts: Part[], keyOf: (part: Part) => string): Map<string, Part[]> {
  const groups = new Map<string, Part[]>();
  for (const part of parts) groups.set(keyOf(part), [...(groups.get(keyOf(part)) ?? []), part]);
  return groups;
}

const line = "-".repeat(80);
const titleOf = ({ name, version }: Part) => `${name} ${version}`;

const own = () =>
  existsSync(join(root, "LICENSE"))
    ? `${readFileSync(join(root, "LICENSE"), "utf8").trim()}\n\nInside are also:`
    : "No licence is chosen yet for the program itself. Inside are also:";

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  const work = mkdtempSync(join(tmpdir(), "licences-"));
  const dist = join(root, "dist");
  try {
    mkdirSync(dist, { recursive: true });
    const node = fetchNode("linux-x64");
    const { inputs } = await bundle("executable");
    writeFileSync(join(dist, "LICENCES.txt"), await licences({ node, inputs }));
    const services = await collectServices(join(work, "services"));
    writeFileSync(join(dist, "LICENCES-complete.txt"), await licences({ node, services, inputs }));
  } finally {
    rmSync(work, { recursive: true, force: true });
  }
}
