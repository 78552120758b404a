/**
 * The nine questions, and the shape of an answer.
 *
 * @module
 */
import type { LedgerRow } from "../lake/ledger.ts";

/** The nine questions, in the order in which they are shown. Their SQL is `sql/answers/<name>.sql`. */
export const questions = {
  top_category_by_country: "The most frequent category of each country",
  category_by_year: "Posts of each category by year, 2018 to 2022",
  top_poster_by_country: "The poster with the most followers in each country",
  top_country: "The country whose top poster has the most followers",
  top_category_by_age_group: "The most frequent category of each age group",
  median_followers_by_age_group: "Median number of followers by age group",
  users_joined_by_year: "People who joined, by year",
  median_followers_by_join_year: "Median number of followers by the year of joining",
  median_followers_by_join_year_and_age_group: "Median number of followers by age group and year of joining",
} as const;

export type Question = keyof typeof questions;

/** A value as it is shown: text, a number, or nothing. Numbers beyond 2^53 are text. */
export type Cell = string | number | null;

/** The rows of one query. */
export interface Answer {
  columns: string[];
  rows: Cell[][];
}

/** What {@link report} found. */
export interface Report {
  ledger: LedgerRow[];
  matches: Answer;
  answers: Record<Question, Answer>;
}
