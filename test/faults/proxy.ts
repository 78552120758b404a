/**
 * A TCP proxy between the program and its broker that can cut, delay, slow down, stall and half-close connections, and
 * drop the response to a request that the broker has executed.
 *
 * It affects the program's connections only: the broker also connects to itself at the address that it advertises.
 *
 * @module
 */

import { once } from "node:events";
import { connect, createServer, type Socket } from "node:net";
import { setTimeout as sleep } from "node:timers/promises";

/** API keys of the Kafka requests whose responses can be dropped. */
export const requests = { Produce: 0, Fetch: 1, InitProducerId: 22, AddPartitionsToTxn: 24, EndTxn: 26 } as const;
export type RequestName = keyof typeof requests;

/** How bytes are treated from now on. */
export interface Weather {
  /** Delay of every chunk, ms. */
  delay?: number;
  /** Bytes per second. */
  speed?: number;
}

export interface BrokerProxy {
  port: number;
  weather: Weather;
  /** Number of open connections of the program. */
  readonly open: number;
  /** Cuts all connections, or one, selected by a number from 0 to 1. */
  cut(which?: number): number;
  /** Closes one direction, or drops all its bytes; the connection is cut after `ms`. */
  half(how: "close" | "stall", direction: "up" | "down", ms: number): number;
  /** Drops the n-th response to this request from now on, then cuts or silences the connection. */
  loseAnswer(request: RequestName, nth: number, how: "cut" | "hang"): Promise<void>;
  /** Refuses connections, like a port without a listener, and cuts the open ones. */
  refuse(): void;
  accept(): Promise<void>;
}

interface Line {
  client: Socket;
  broker: Socket;
  ours: boolean;
  /** Pending requests, by correlation id. */
  waiting: Map<number, number>;
  stalled: { up: boolean; down: boolean };
}

/** Opens a proxy on 127.0.0.1 from `port` to the port `target`. */
export async function openProxy(port: number, target: number): Promise<BrokerProxy> {
  const lines = new Set<Line>();
  const ours = () => [...lines].filter((line) => line.ours);
  const weather: Weather = {};
  let rule: { request: number; left: number; how: "cut" | "hang"; done: () => void } | undefined;
  const end = (line: Line) => {
    lines.delete(line);
    line.client.destroy();
    line.broker.destroy();
  };

  /** Drops this response, if it is the selected one. */
  const lose = (line: Line, request: number | undefined) => {
    if (!rule || request !== rule.request || --rule.left > 0) return;
    const { how, done } = rule;
    rule = undefined;
    line.stalled.down = true;
    if (how === "cut") end(line);
    done();
  };

  async function carry(line: Line, from: Socket, to: Socket, direction: "up" | "down"): Promise<void> {
    const frames = direction === "up" ? watchFrames(14) : watchFrames(8);
    for await (const chunk of from as AsyncIterable<Buffer>) {
      for (const head of frames(chunk)) {
        const correlation = head.readInt32BE(direction === "up" ? 8 : 4);
        if (direction === "up") {
          line.waiting.set(correlation, head.readInt16BE(4));
          line.ours ||= head.readInt16BE(12) === ourName.length;
        } else {
          const request = line.waiting.get(correlation);
          line.waiting.delete(correlation);
          if (line.ours) lose(line, request);
        }
      }
      if (line.ours && line.stalled[direction]) continue;
      if (line.ours && weather.delay) await sleep(weather.delay);
      for (let at = 0; at < chunk.length; ) {
        const slow = line.ours && weather.speed !== undefined;
        const size = slow ? Math.max(1, Math.floor((weather.speed as number) / 20)) : chunk.length;
        if (slow) await sleep(50);
        if (to.destroyed) return;
        if (!to.write(chunk.subarray(at, at + size))) await drained(to);
        at += size;
      }
    }
    to.end();
  }

  const server = createServer((client) => {
    const broker = connect(target, "127.0.0.1");
    const line: Line = { client, broker, ours: false, waiting: new Map(), stalled: { up: false, down: false } };
    lines.add(line);
    for (const socket of [client, broker]) {
      socket.on("error", () => end(line)).on("close", () => end(line));
      socket.setNoDelay(true);
    }
    carry(line, client, broker, "up").catch(() => end(line));
    carry(line, broker, client, "down").catch(() => end(line));
  });
  const accept = async () => {
    server.listen(port, "127.0.0.1");
    await once(server, "listening");
  };
  await accept();

  return {
    port,
    weather,
    get open() {
      return ours().length;
    },
    cut(which) {
      const open = ours();
      const some = which === undefined ? open : open.slice(Math.floor(which * open.length)).slice(0, 1);
      for (const line of some) end(line);
      return some.length;
    },
    half(how, direction, ms) {
      const some = ours();
      for (const line of some) {
        if (how === "stall") line.stalled[direction] = true;
        else (direction === "up" ? line.broker : line.client).end();
        setTimeout(() => end(line), ms).unref();
      }
      return some.length;
    },
    loseAnswer: (request, nth, how) =>
      new Promise<void>((done) => {
        rule = { request: requests[request], left: nth, how, done };
      }),
    refuse() {
      server.close();
      for (const line of lines) end(line);
    },
    accept,
  };
}

const drained = (socket: Socket) =>
  new Promise<void>((resolve) => {
    const done = () => {
      socket.off("drain", done).off("close", done);
      resolve();
    };
    socket.on("drain", done).on("close", done);
  });

const ourName = "pinterest-data-pipeline";

/** Passes on the first bytes of every frame (four bytes of length, then the frame). */
function watchFrames(headSize: number): (chunk: Buffer) => Buffer[] {
  let head = Buffer.alloc(0);
  let rest = 0;
  return (chunk) => {
    const heads: Buffer[] = [];
    for (let at = 0; at < chunk.length; ) {
      if (rest > 0) {
        const some = Math.min(rest, chunk.length - at);
        rest -= some;
        at += some;
        continue;
      }
      const some = chunk.subarray(at, at + headSize - head.length);
      head = Buffer.concat([head, some]);
      at += some.length;
      if (head.length < headSize) continue;
      heads.push(head);
      rest = 4 + head.readInt32BE(0) - headSize;
      head = Buffer.alloc(0);
    }
    return heads;
  };
}
