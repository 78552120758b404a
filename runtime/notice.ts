/**
 * What every stage may say to people, beside its own facts.
 *
 * @module
 */

/** A warning, or what is waited for. */
export type Notice = { fact: "warned"; text: string } | { fact: "waited"; text: string };
