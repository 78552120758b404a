/**
 * Notices to people, which every stage may send beside its facts.
 *
 * @module
 */

/** A warning, or the reason of a wait. */
export type Notice = { fact: "warned"; text: string } | { fact: "waited"; text: string };
