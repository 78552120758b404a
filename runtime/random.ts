/**
 * Random numbers from a seed.
 *
 * @module
 */

/** A mulberry32 generator: the same numbers for the same seed. A class, because the sample needs millions of numbers. */
export class Random {
  private state: number;

  constructor(seed: number) {
    this.state = seed | 0;
  }

  /** 0 to 2^32 - 1. */
  next(): number {
    this.state = (this.state + 0x6d2b79f5) | 0;
    let bits = Math.imul(this.state ^ (this.state >>> 15), this.state | 1);
    bits = (bits + Math.imul(bits ^ (bits >>> 7), bits | 61)) ^ bits;
    return (bits ^ (bits >>> 14)) >>> 0;
  }

  /** From 0, below 1. */
  real(): number {
    return this.next() / 2 ** 32;
  }

  /** 0 to n - 1. */
  below(n: number): number {
    return Math.floor(this.real() * n);
  }

  /** 0 to n - 1, small numbers more often. */
  low(n: number): number {
    const real = this.real();
    return Math.floor(real * real * n);
  }

  chance(share: number): boolean {
    return this.real() < share;
  }

  pick<T>(items: ArrayLike<T>): T {
    return items[this.below(items.length)] as T;
  }
}
