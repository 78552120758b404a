/**
 * What the sample data is worded with, from `words.json`: the items of a list are separated by `|`, and `{x}` in a
 * template is a word of list x.
 *
 * @module
 */
import words from "./words.json" with { type: "json" };

const list = (text: string) => text.split("|").map((item) => item.trim());

/** A text with holes: texts, and between them the lists that fill the holes, undefined for the post's own things. */
export interface Template {
  texts: string[];
  fillings: (readonly string[] | undefined)[];
}
const templates = (lines: string[]): Template[] =>
  lines.map((line) => {
    const parts = line.split(/[{}]/); // texts at even places, names of lists at odd ones
    const names = parts.filter((_, i) => i % 2 === 1) as (keyof typeof lists | "thing")[];
    return {
      texts: parts.filter((_, i) => i % 2 === 0),
      fillings: names.map((name) => (name === "thing" ? undefined : lists[name])),
    };
  });

/** Every word with a capital. */
const headline = (text: string) => text.replace(/(?<![\w'])[a-z]/g, (letter) => letter.toUpperCase());

const { oddity, ...named } = words.lists;

/** The lists that templates name; `thing` is the category's own, and `oddity` is what breaks careless code. */
export const lists = {
  ...(Object.fromEntries(Object.entries(named).map(([name, text]) => [name, list(text)])) as Record<
    keyof typeof named,
    string[]
  >),
  oddity,
};

/** The 13 categories in the order of their blocks, each with what its posts are about (`{thing}`) and their tags. */
export const categories = Object.entries(words.categories).map(([name, items]) => {
  const things = list(items);
  const tags = things.flatMap((thing) => [
    ...lists.adjective.slice(0, 8).map((adjective) => `${adjective} ${headline(thing)}`),
    ...Array<string>(8).fill(headline(thing)),
  ]);
  return { name, things, tags: [...tags, ...lists.tag.flatMap((tag) => [tag, `${headline(name)} ${tag}`])] };
});

/** Titles; the last ones are in other languages. */
export const titles = templates(words.titles);

/** The sentences that descriptions are made of. */
export const sentences = templates(words.sentences);

/** Names of posters. */
export const posters = templates(words.posters);

/** The 241 countries, those that begin with A first: a third of the rows are theirs alone. */
export const countries = list(words.countries.join("|"));
