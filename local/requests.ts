/**
 * The Kafka protocol requests that a start sends; they need no Kafka client.
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
  metadata: request(3, 1, "ffffffff"), // null array: all topics
  findCoordinator: request(10, 1, "00016101"), // key "a" (1 byte), type 1: transaction
  initProducerId: request(22, 0, "ffff0000ea60"), // no transactional id, timeout 60,000 ms
};
