/**
 * The requests of Kafka's protocol that a start sends: whether a broker answers needs no client.
 *
 * @module
 */

/** A request: its length, API key, version, correlation id 1, no client id, then the body. */
function request(api: number, version: number, body = ""): Buffer {
  const bytes = Buffer.from(body, "hex");
  const head = Buffer.alloc(14);
  head.writeInt32BE(head.length - 4 + bytes.length, 0);
  head.writeInt16BE(api, 4);
  head.writeInt16BE(version, 6);
  head.writeInt32BE(1, 8);
  head.writeInt16BE(-1, 12);
  return Buffer.concat([head, bytes]);
}

export const requests = {
  apiVersions: request(18, 0),
  metadata: request(3, 1, "ffffffff"), // all topics: a null array
  findCoordinator: request(10, 1, "00016101"), // key of 1 byte, "a", of type 1, a transaction
  initProducerId: request(22, 0, "ffff0000ea60"), // no transactional id, time-out 60,000 ms
};
