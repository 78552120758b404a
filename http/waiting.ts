/**
 * Counts the messages of a topic that are not landed or not cleaned yet.
 *
 * Offsets do not count messages: transaction markers and aborted records have offsets too. So the messages are read,
 * a few MB in each poll. Where too many wait for that, their number is estimated from the first of them.
 *
 * @module
 */

import type { KafkaReader } from "../kafka/client.ts";
import { fetchOnce } from "../kafka/fetch.ts";
import type { PartitionOffsets } from "../kafka/topics.ts";

/** The committed messages of a topic that are not cleaned yet. */
export interface Waiting {
  messages: number;
  /** Those of them that are not landed yet. */
  notLanded: number;
  /** Whether all were counted; otherwise some are estimated from offsets. */
  exact: boolean;
  /** When the oldest of them was posted, ms since 1970; null if none waits. */
  since: number | null;
}

/** Messages of one partition that were read: all with offsets in [from, position). */
interface Window {
  from: number;
  position: number;
  offsets: number[];
  times: number[];
}

/** More offsets than these are estimated; the memory of a partition's window is 16 bytes for each. */
const mostCounted = 100_000;
/** Most fetches from a partition in one poll, and the bytes of each. */
const mostFetches = 4;
const fetchBytes = 1_000_000;

/** Opens a counter, which keeps what it has read of a topic until that is cleaned. */
export function openWaiting() {
  const windows = new Map<string, Window>();

  const count = async (
    reader: KafkaReader,
    { topic, partition, from, to }: { topic: string; partition: number; from: number; to: number },
  ): Promise<Window> => {
    const id = `${topic}/${partition}`;
    const isMany = to - from > mostCounted;
    let window = windows.get(id);
    const follows = window && window.from <= from && from <= window.position && window.position <= to;
    // One fetch at the start serves for an estimate until some of it is cleaned.
    if (!window || !follows || (isMany && window.from < from)) {
      window = { from, position: from, offsets: [], times: [] };
      windows.set(id, window);
    }
    const cleaned = window.offsets.findIndex((offset) => offset >= from);
    const dropped = cleaned < 0 ? window.offsets.length : cleaned;
    window.offsets.splice(0, dropped);
    window.times.splice(0, dropped);
    window.from = from;
    const { offsets, times } = window;
    for (let fetches = 0; fetches < mostFetches && window.position < to; fetches++) {
      if (isMany && offsets.length > 0) break;
      const positions = new Map([[partition, window.position]]);
      await fetchOnce(reader, {
        ...{ topic, positions, endOffsets: new Map([[partition, to]]), maxBytes: fetchBytes, maxWait: 100 },
        onRecord: (_partition, { offset, timestamp }) => {
          offsets.push(offset);
          times.push(timestamp);
        },
      });
      window.position = positions.get(partition) as number;
    }
    return window;
  };

  return {
    /** @param lake the next offset to land and to clean, by partition */
    async read(
      reader: KafkaReader,
      { topic, partitions, lake }: { topic: string; partitions: PartitionOffsets[]; lake: Lake },
    ): Promise<Waiting> {
      const total: Waiting = { messages: 0, notLanded: 0, exact: true, since: null };
      for (const { partition, logStart, lastStable: to } of partitions) {
        const from = Math.max(logStart, lake.cleaned[partition] ?? 0);
        if (from >= to) continue;
        const { position, offsets, times } = await count(reader, { topic, partition, from, to });
        const landed = Math.max(from, lake.landed[partition] ?? 0);
        const density = position > from ? offsets.length / (position - from) : 1;
        const estimate = (first: number) => Math.round(density * Math.max(0, to - Math.max(first, position)));
        total.messages += offsets.length + estimate(from);
        total.notLanded += offsets.filter((offset) => offset >= landed).length + estimate(landed);
        total.exact &&= position >= to;
        const [oldest] = times;
        if (oldest !== undefined) total.since = Math.min(oldest, total.since ?? oldest);
      }
      return total;
    },
  };
}

interface Lake {
  landed: Record<string, number>;
  cleaned: Record<string, number>;
}
