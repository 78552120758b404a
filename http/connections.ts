/**
 * Which connections stay open: those of clients who were let in come first, strangers have a part that is theirs.
 *
 * @module
 */

import diagnostics from "node:diagnostics_channel";
import type { ServerResponse } from "node:http";
import type { Socket } from "node:net";
import type { FastifyInstance } from "fastify";
import { bounds } from "./bounds.ts";

interface Peer {
  address: string;
  /** One of its requests was allowed to do more than read public pages. */
  letIn: boolean;
  /** Such requests that are complete and wait for their answer. */
  working: number;
}

/** What the guard reports of a connection. */
export interface Connections {
  letIn(socket: Socket): void;
  /** Keeps the connection until the answer is sent. */
  work(socket: Socket, answer: ServerResponse): void;
}

/** Bounds the connections that the process accepts until the server closes. */
export function boundConnections(app: FastifyInstance): Connections {
  /** Those that were let in longest ago come first, strangers stand in the order of their arrival. */
  const peers = new Map<Socket, Peer>();
  const drop = (socket: Socket) => {
    peers.delete(socket);
    socket.destroy();
  };
  // An honest stranger sends its request at once: the oldest is the one to go, so that newcomers always get in.
  const accept = (message: unknown) => {
    const { socket } = message as { socket: Socket };
    const address = socket.remoteAddress ?? "";
    peers.set(socket, { address, letIn: false, working: 0 });
    socket.once("close", () => peers.delete(socket));
    if (peers.size <= bounds.strangersOfAddress) return;
    const strangers = [...peers].filter(([, peer]) => !peer.letIn);
    const neighbours = strangers.filter(([, peer]) => peer.address === address);
    if (neighbours.length > bounds.strangersOfAddress) drop((neighbours[0] as [Socket, Peer])[0]);
    else if (strangers.length > bounds.strangers) drop((strangers[0] as [Socket, Peer])[0]);
    else if (peers.size > bounds.connections) {
      const [idle] = [...strangers.slice(0, -1), ...[...peers].filter(([, peer]) => peer.letIn && peer.working === 0)];
      drop(idle?.[0] ?? socket);
    }
  };
  // Not the server's own event: Fastify listens on "localhost" with a second server that it shows to nobody.
  diagnostics.subscribe("net.server.socket", accept);
  app.addHook("onClose", async () => void diagnostics.unsubscribe("net.server.socket", accept));
  return {
    letIn(socket) {
      const peer = peers.get(socket);
      if (!peer) return;
      peer.letIn = true;
      peers.delete(socket);
      peers.set(socket, peer);
    },
    work(socket, answer) {
      const peer = peers.get(socket);
      if (!peer?.letIn) return;
      peer.working++;
      answer.once("close", () => peer.working--);
    },
  };
}
