/**
 * A set of whole numbers that stores dense ranges as bits.
 *
 * @module
 */

/** Keys per block. */
const blockKeys = 65_536;
/** A block with more keys than this is stored as a bit for each possible key: 8 kB. */
const mostSparse = 256;

type Block = Set<number> | Uint8Array;

/** Whole numbers of any size. A number and a bigint of the same value below 2^53 are the same key. */
export class KeySet {
  private readonly blocks = new Map<number | bigint, Block>();

  add(key: number | bigint): void {
    const { number, place } = placeOf(key);
    let block: Block = this.blocks.get(number) ?? new Set();
    if (block instanceof Set && block.size >= mostSparse) block = dense(block);
    this.blocks.set(number, block);
    if (block instanceof Set) block.add(place);
    else (block[place >> 3] as number) |= 1 << (place & 7);
  }

  delete(key: number | bigint): void {
    const { number, place } = placeOf(key);
    const block = this.blocks.get(number);
    if (block instanceof Set) block.delete(place);
    else if (block) (block[place >> 3] as number) &= ~(1 << (place & 7));
  }

  /** The keys as decimal text, in order within each block. */
  *texts(): Generator<string> {
    for (const [number, block] of this.blocks) {
      const first = typeof number === "bigint" ? number << 16n : number * blockKeys;
      const text = (place: number) => String(typeof first === "bigint" ? first + BigInt(place) : first + place);
      if (block instanceof Set) for (const place of [...block].sort((a, b) => a - b)) yield text(place);
      else for (let place = 0; place < blockKeys; place++) if (isIn(block, place)) yield text(place);
    }
  }
}

function placeOf(key: number | bigint): { number: number | bigint; place: number } {
  if (typeof key === "bigint") {
    if (key < Number.MIN_SAFE_INTEGER || key > Number.MAX_SAFE_INTEGER) {
      return { number: key >> 16n, place: Number(key & 65_535n) };
    }
    return placeOf(Number(key));
  }
  const number = Math.floor(key / blockKeys);
  return { number, place: key - number * blockKeys };
}

function dense(block: Set<number>): Uint8Array {
  const bits = new Uint8Array(blockKeys / 8);
  for (const place of block) (bits[place >> 3] as number) |= 1 << (place & 7);
  return bits;
}

const isIn = (block: Uint8Array, place: number): boolean => ((block[place >> 3] as number) & (1 << (place & 7))) !== 0;
