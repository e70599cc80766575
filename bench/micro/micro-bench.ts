/** Work to be measured, set up. */
export interface Prepared {
  /**
   * Does the operation this many times and returns something that depends on every result, so that the compiler can
   * drop none of them.
   */
  run(iterations: number): number;
  /** Done before every run, outside the measurement. */
  before?(): void;
  /** For a run that cannot be of any length. @default as many as fill the time */
  readonly iterations?: number;
}

/** One hot function under one condition. It has a process of its own: nothing else shapes its machine code. */
export interface MicroBench {
  /** `function: condition`. */
  readonly name: string;
  prepare(): Prepared | Promise<Prepared>;
}

/** What was measured; nanoseconds and bytes are for one operation. */
export interface Measurement {
  readonly name: string;
  readonly medianNs: number;
  readonly leastNs: number;
  readonly mostNs: number;
  readonly runs: number;
  readonly iterations: number;
  /** On the heap of V8, and outside it (array buffers). */
  readonly allocatedBytes: number;
  /** Of all runs: shows that the work was done. */
  readonly checksum: number;
}
