/**
 * Lands messages of a topic as bronze files, unchanged, in a worker thread. The main thread stays responsive to
 * signals, and the next batch lands while the last one is cleaned.
 *
 * @module
 */

import { writeFileSync } from "node:fs";
import { rename, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { parentPort, workerData } from "node:worker_threads";
import { bronzeLines } from "../io/bronze_lines.ts";
import { messageBytes } from "../io/record_batch.ts";
import type { Table } from "../io.ts";
import { connectReader, type KafkaReader } from "../kafka/client.ts";
import { retriable } from "../kafka/errors.ts";
import { fetchOnce, unread } from "../kafka/fetch.ts";
import type { KafkaSettings } from "../kafka/settings.ts";
import { topicIds } from "../kafka/topic_ids.ts";
import { type BronzeFile, batchBytes, bronzeName, largeMessage, weightOf } from "../lake/bronze.ts";
import { type Offsets, paths, syncPath } from "../lake/files.ts";
import { checkTopicId } from "../lake/owner.ts";
import { blockOfKey } from "../lake/silver.ts";
import { step } from "../runtime/steps.ts";
import { threadOpener } from "../runtime/threads.ts";

/** The messages to land: from `positions` up to `endOffsets`, at most one batch. */
interface LandOptions {
  table: Table;
  topic: string;
  /** Kafka's id of the topic, null if Kafka has none. Messages of another topic with this name are refused. */
  topicId: string | null;
  positions: Offsets;
  endOffsets: Offsets;
}

/** The landed files, and the positions where the next batch starts. */
interface Landed {
  files: BronzeFile[];
  positions: Offsets;
}

/** A thread that lands messages. Disposing ends it; the next start removes its unfinished files. */
export interface LandingThread extends AsyncDisposable {
  /** Lands one batch. After an error the thread has ended: open another one. */
  land(options: LandOptions): Promise<Landed>;
}

interface Job {
  kind: "land";
  kafka: KafkaSettings;
  lake: string;
}

/** Opens a thread that lands into `lake`. */
export async function openLandingThread({
  kafka,
  lake,
}: {
  kafka: KafkaSettings;
  lake: string;
}): Promise<LandingThread> {
  const openThread = await threadOpener("clean/land.ts");
  const worker = openThread({ workerData: { kind: "land", kafka, lake } satisfies Job });
  const waiting = new Map<number, { resolve: (landed: Landed) => void; reject: (error: Error) => void }>();
  let over: Error | undefined;
  const end = (error: Error) => {
    over ??= error;
    for (const { reject } of waiting.values()) reject(over);
    waiting.clear();
  };
  worker.on("message", ({ id, landed }: { id: number; landed: Landed }) => {
    waiting.get(id)?.resolve(landed);
    waiting.delete(id);
  });
  worker.on("error", end);
  worker.on("exit", (code) => end(new Error(`The thread that lands messages ended with code ${code}`)));
  let id = 0;
  return {
    land: (options) =>
      new Promise((resolve, reject) => {
        if (over) return reject(over);
        waiting.set(++id, { resolve, reject });
        worker.postMessage({ id, options });
      }),
    [Symbol.asyncDispose]: async () => void (await worker.terminate()),
  };
}

// ---- the thread's side ----

/** An unfinished bronze file: consecutive messages of one partition. */
interface Segment {
  partition: number;
  first: number;
  messages: number;
  large: boolean;
  block: number | undefined;
  /** Lines that are not written yet. */
  lines: ReturnType<typeof bronzeLines> | undefined;
  temporary: string;
  /** Bytes written. */
  written: number;
}

/** A file with this many messages ends where the key block changes, so that each block can be cleaned by itself. */
const blockMessages = 8192;

/** Line buffers to reuse. */
const free: ReturnType<typeof bronzeLines>[] = [];

/**
 * Appends the lines so far to an unfinished file. The file is closed in between, because a batch may have any number
 * of files. It is written synchronously within a fetch callback, because a small compressed batch may hold many lines.
 */
function write(segment: Segment): void {
  if (!segment.lines) return;
  const lines = segment.lines.take();
  writeFileSync(segment.temporary, lines, { flag: segment.written > 0 ? "a" : "w" });
  segment.written += lines.length;
  // A buffer that grew for a very large message is released.
  if (lines.length < 3 * largeMessage) free.push(segment.lines);
  segment.lines = undefined;
}

/** Lands one batch: fetches until it is full or everything is read, then renames its files into place. */
async function land(
  reader: KafkaReader,
  lake: string,
  { table, topic, topicId, positions, endOffsets }: LandOptions,
): Promise<Landed> {
  const from = new Map(positions);
  const segments: Segment[] = [];
  const current = new Map<number, Segment>();
  const begin = (partition: number, first: number): Segment => {
    const temporary = join(paths(lake).tmp, `land-${table}-${partition}-${first}`);
    const segment: Segment = {
      ...{ partition, first, messages: 0, large: false, block: undefined },
      ...{ lines: undefined, temporary, written: 0 },
    };
    segments.push(segment);
    const before = current.get(partition);
    if (before) write(before);
    current.set(partition, segment);
    return segment;
  };
  for (let bytes = 0, reading = true; reading && bytes < batchBytes; ) {
    step("landing", table);
    await fetchOnce(reader, {
      topic,
      positions,
      endOffsets,
      onRecord: (partition, record) => {
        const large = messageBytes(record) > largeMessage;
        const block = blockOfKey(record.bytes, record.keyStart, record.keyEnd);
        let segment = current.get(partition) ?? begin(partition, from.get(partition) as number);
        const full = segment.block !== block && segment.messages >= blockMessages;
        if (segment.large || full || (large && segment.messages > 0)) segment = begin(partition, record.offset);
        segment.large = large;
        segment.block = block;
        segment.messages++;
        segment.lines ??= free.pop() ?? bronzeLines();
        segment.lines.add(partition, record);
        if (segment.lines.bytes > largeMessage) write(segment);
      },
    });
    for (const segment of current.values()) write(segment);
    bytes = segments.reduce((sum, { written, messages }) => sum + weightOf(written, messages), 0);
    reading = unread(positions, endOffsets) > 0;
  }
  // Messages are fetched by topic name; the id shows which topic they are from.
  if (topicId !== null) {
    const id = (await topicIds(reader, [topic])).get(topic);
    if (id === undefined) throw retriable(`Topic "${topic}" was deleted`);
    checkTopicId(topic, topicId, id);
  }
  // If only aborted messages and transaction markers were read, an empty file records the new offset.
  for (const [partition, next] of positions) {
    if (next > (from.get(partition) as number) && !current.has(partition))
      begin(partition, from.get(partition) as number);
  }
  const files: BronzeFile[] = [];
  for (const [i, { partition, first, messages, temporary }] of segments.entries()) {
    if (messages > 0) await syncPath(temporary);
    else await writeFile(temporary, "");
    const following = segments.find((segment, j) => j > i && segment.partition === partition);
    const range = { partition, first, next: following?.first ?? (positions.get(partition) as number), messages };
    const path = join(paths(lake).bronze(table), bronzeName(range));
    files.push({ path, ...range });
    step("written", path);
    await rename(temporary, path);
    step("renamed", path);
  }
  await syncPath(paths(lake).bronze(table));
  return { files, positions };
}

async function serveLanding({ kafka, lake }: Job, port: NonNullable<typeof parentPort>): Promise<void> {
  let connecting = connectReader(kafka);
  connecting.catch(() => {}); // tried again when it is needed
  port.on("message", async ({ id, options }: { id: number; options: LandOptions }) => {
    connecting = connecting.catch(() => connectReader(kafka));
    port.postMessage({ id, landed: await land(await connecting, lake, options) });
  });
}

const job = workerData as Job | null;
if (job?.kind === "land" && parentPort) void serveLanding(job, parentPort);
