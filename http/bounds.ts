/**
 * What the server takes at once, so that no client can take its memory or its connections.
 *
 * @module
 */

/** Strangers are clients that were not let in: they showed no token, or did nothing yet that needs one. */
export const bounds = {
  /** One body, and all that are open together: these decide how much memory there must be. */
  bodyBytes: 4_000_000,
  openBytes: 32_000_000,
  openRequests: 1_000,
  /** A token of 500 characters fits, however it is escaped. */
  strangerBodyBytes: 4_096,
  strangerBodyMs: 5_000,
  /** Of anyone: an honest client sends its head at once. */
  headMs: 5_000,
  connections: 2_000,
  strangers: 1_000,
  /** Behind a proxy all clients have one address. */
  strangersOfAddress: 500,
};
