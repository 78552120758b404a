/**
 * The words of the sample data, from `words.json`. The items of a list are separated by `|`; `{x}` in a template is
 * replaced by an item of list x.
 *
 * @module
 */
import words from "./words.json" with { type: "json" };

const list = (text: string) => text.split("|").map((item) => item.trim());

/** A text with placeholders: its texts, and the list for each placeholder (undefined: the category's things). */
export interface Template {
  texts: string[];
  fillings: (readonly string[] | undefined)[];
}
const templates = (lines: string[]): Template[] =>
  lines.map((line) => {
    const parts = line.split(/[{}]/); // texts at even indexes, names of lists at odd ones
    const names = parts.filter((_, i) => i % 2 === 1) as (keyof typeof lists | "thing")[];
    return {
      texts: parts.filter((_, i) => i % 2 === 0),
      fillings: names.map((name) => (name === "thing" ? undefined : lists[name])),
    };
  });

/** Capitalizes every word. */
const headline = (text: string) => text.replace(/(?<![\w'])[a-z]/g, (letter) => letter.toUpperCase());

const { oddity, ...named } = words.lists;

/** The lists for templates. `thing` comes from the category; `oddity` holds texts that break careless code. */
export const lists = {
  ...(Object.fromEntries(Object.entries(named).map(([name, text]) => [name, list(text)])) as Record<
    keyof typeof named,
    string[]
  >),
  oddity,
};

/** The 13 categories in the order of their blocks, each with the subjects of its posts (`{thing}`) and their tags. */
export const categories = Object.entries(words.categories).map(([name, items]) => {
  const things = list(items);
  const tags = things.flatMap((thing) => [
    ...lists.adjective.slice(0, 8).map((adjective) => `${adjective} ${headline(thing)}`),
    ...Array<string>(8).fill(headline(thing)),
  ]);
  return { name, things, tags: [...tags, ...lists.tag.flatMap((tag) => [tag, `${headline(name)} ${tag}`])] };
});

/** Titles; the last are in other languages. */
export const titles = templates(words.titles);

/** Sentences of descriptions. */
export const sentences = templates(words.sentences);

/** Names of posters. */
export const posters = templates(words.posters);

/** The 241 countries. The first, with A, get a third of the rows in addition. */
export const countries = list(words.countries.join("|"));
