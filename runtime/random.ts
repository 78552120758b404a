/**
 * Random numbers by a seed.
 *
 * @module
 */

/** The same numbers for the same seed (mulberry32). A class, since the sample makes millions of them. */
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

  /** 0 to 1, without 1. */
  real(): number {
    return this.next() / 2 ** 32;
  }

  /** 0 to n - 1. */
  below(n: number): number {
    return Math.floor(this.real() * n);
  }

  /** 0 to n - 1, small ones more often. */
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
