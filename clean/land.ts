/**
 * Landing: messages from a topic into bronze files, as they came, in a thread of its own: the main thread stays free
 * to be stopped, and the next batch lands while the last one is cleaned.
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
import { type BronzeFile, batchBytes, bronzeName, largeMessage } from "../lake/bronze.ts";
import { type Offsets, paths, syncPath } from "../lake/files.ts";
import { checkTopicId } from "../lake/owner.ts";
import { blockOfKey } from "../lake/silver.ts";
import { step } from "../runtime/steps.ts";
import { threadOpener } from "../runtime/threads.ts";

/** What to land: from `positions` up to `endOffsets`, or as much as one batch holds. */
interface LandOptions {
  table: Table;
  topic: string;
  /** The topic's id, where Kafka gives one: nothing is landed from another topic of that name. */
  topicId: string | null;
  positions: Offsets;
  endOffsets: Offsets;
}

/** What was landed; `positions` say where to go on. */
interface Landed {
  files: BronzeFile[];
  positions: Offsets;
}

/** A thread that lands; to dispose ends it, and what it has not finished is dropped at the next start. */
export interface LandingThread extends AsyncDisposable {
  /** Lands one batch. After an error the thread has ended, and another is to be opened. */
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

/** A bronze file in the making: a run of messages of one partition. */
interface Segment {
  partition: number;
  first: number;
  messages: number;
  large: boolean;
  block: number | undefined;
  /** What is not written yet. */
  lines: ReturnType<typeof bronzeLines> | undefined;
  temporary: string;
  /** Bytes that are written. */
  written: number;
}

/** A file with so many messages ends where the keys come to another block, so that each block can be cleaned on its own. */
const blockMessages = 8192;

/** Where lines are made, to be used again. */
const free: ReturnType<typeof bronzeLines>[] = [];

/**
 * Writes the lines that a file in the making has so far. The file is closed in between, because a batch may make any
 * number of files; and it is written within the callback of a fetch, because a small compressed batch may hold many lines.
 */
function write(segment: Segment): void {
  if (!segment.lines) return;
  const lines = segment.lines.take();
  writeFileSync(segment.temporary, lines, { flag: segment.written > 0 ? "a" : "w" });
  segment.written += lines.length;
  // What a very large message has made large is let go of.
  if (lines.length < 3 * largeMessage) free.push(segment.lines);
  segment.lines = undefined;
}

/** Lands one batch: fetches until it is full or all is read, then puts its files in place. */
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
    bytes = segments.reduce((sum, { written }) => sum + written, 0);
    reading = unread(positions, endOffsets) > 0;
  }
  // Fetched by its name: only now is it sure which topic the messages are from.
  if (topicId !== null) {
    const id = (await topicIds(reader, [topic])).get(topic);
    if (id === undefined) throw retriable(`Topic "${topic}" is gone`);
    checkTopicId(topic, topicId, id);
  }
  // Where all that was read was aborted or a mark, the file is empty and only moves the offset on.
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
  const connecting = connectReader(kafka);
  connecting.catch(() => {}); // told where it is awaited
  port.on("message", async ({ id, options }: { id: number; options: LandOptions }) => {
    port.postMessage({ id, landed: await land(await connecting, lake, options) });
  });
}

const job = workerData as Job | null;
if (job?.kind === "land" && parentPort) void serveLanding(job, parentPort);
