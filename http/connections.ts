/**
 * Limits the open connections: clients that were let in are preferred, and strangers have a separate share.
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
  /** Whether one of its requests was allowed to do more than read public pages. */
  letIn: boolean;
  /** Complete requests of that kind that wait for their answer. */
  working: number;
}

/** Events of a connection, which the guard reports. */
export interface Connections {
  letIn(socket: Socket): void;
  /** Keeps the connection until the answer is sent. */
  work(socket: Socket, answer: ServerResponse): void;
}

/** Limits the connections that the process accepts, until the server closes. */
export function boundConnections(app: FastifyInstance): Connections {
  /** In order of arrival; a peer that is let in moves to the end. */
  const peers = new Map<Socket, Peer>();
  const drop = (socket: Socket) => {
    peers.delete(socket);
    socket.destroy();
  };
  // An honest stranger sends its request immediately, so the oldest stranger is dropped and newcomers always get in.
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
  // Not the server's own event: on "localhost" Fastify listens with a second server that it does not expose.
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
