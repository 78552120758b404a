/**
 * The limits of the server, so that no client can exhaust its memory or its connections.
 *
 * @module
 */

/** A stranger is a client that has not been let in: it showed no token, or has not yet asked for anything that needs one. */
export const bounds = {
  /** Bytes of one body, and of all open bodies: these decide how much memory the server needs. */
  bodyBytes: 4_000_000,
  openBytes: 32_000_000,
  openRequests: 1_000,
  /** Enough for a token of 500 characters, however it is escaped. */
  strangerBodyBytes: 4_096,
  strangerBodyMs: 5_000,
  /** The head of any request: an honest client sends it immediately. */
  headMs: 5_000,
  connections: 2_000,
  strangers: 1_000,
  /** Large, because all clients behind a proxy have one address. */
  strangersOfAddress: 500,
};
