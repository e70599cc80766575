import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import fc from 'fast-check';
import { LimitBroker } from '../../../../src/planes/workers/limit-broker.js';
import { firstShare, type CapShares } from '../../../../src/flows/caps.js';

/** A worker that uses what it wants, as far as its share goes; it keeps what it has. */
class Member {
  readonly #peer: ReturnType<LimitBroker['join']>;
  share: number;
  used = 0;
  seen = 0;
  #refused = false;
  /** Shares that have been sent and not been read yet. */
  readonly inbox: { readonly sequence: number; readonly shares: CapShares }[] = [];

  constructor(share: number, broker: LimitBroker, worker: number) {
    this.share = share;
    this.#peer = broker.join(worker, {
      allow: (sequence, shares) => void this.inbox.push({ sequence, shares }),
    });
  }

  die(): void {
    this.#peer.left();
  }

  read(): void {
    for (const { sequence, shares } of this.inbox.splice(0)) {
      this.share = shares.get('tcp')?.share ?? this.share;
      this.seen = sequence;
    }
  }

  open(count: number): void {
    for (let n = 0; n < count; n++) {
      if (this.used < this.share) this.used++;
      else this.#refused = true;
    }
  }

  close(count: number): void {
    this.used = Math.max(0, this.used - count);
  }

  pulse(): void {
    const wanting = this.#refused;
    this.#refused = false;
    this.#peer.pulse({
      flows: this.used,
      uses: new Map([['tcp', { used: this.used, wanting }]]),
      sharesSeen: this.seen,
    });
  }
}

class Lab {
  readonly desk: LimitBroker;
  readonly members: Member[];
  readonly cap: number;

  constructor(cap: number, workers: number) {
    this.cap = cap;
    this.desk = new LimitBroker(workers);
    this.desk.setCaps(new Map([['tcp', cap]]));
    this.members = Array.from({ length: workers }, (_, worker) =>
      this.#launch(worker, firstShare(cap, worker, workers)),
    );
  }

  get used(): number {
    return this.members.reduce((sum, { used }) => sum + used, 0);
  }

  #launch(worker: number, share: number): Member {
    return new Member(share, this.desk, worker);
  }

  replace(worker: number): void {
    this.members[worker]!.die();
    this.members[worker] = this.#launch(worker, 0);
    this.members[worker].read();
  }

  /** A round in which each worker asks for what it lacks of this use. */
  fill(use: readonly number[]): void {
    this.round(this.members.map(({ used }, worker) => (use[worker] ?? 0) - used));
  }

  /** Every worker reads, opens what is asked of it, and pulses. */
  round(opening: readonly number[]): void {
    for (const [worker, member] of this.members.entries()) {
      member.read();
      member.open(opening[worker] ?? 0);
      member.pulse();
    }
  }
}

void describe('LimitBroker', () => {
  test('a worker that alone has traffic gets nine tenths within six pulses and all in the end', () => {
    const lab = new Lab(1000, 2);
    const rounds: number[] = [];
    for (let n = 0; n < 20; n++) {
      lab.round([1000, 0]);
      rounds.push(lab.used);
    }
    assert.equal(rounds[0], 500, 'the first share is half');
    assert.ok(rounds[5]! >= 900, `after six pulses ${rounds[5]}`);
    assert.equal(rounds.at(-1), 1000);
  });

  test('the only place of a cap of one goes to the worker that refused somebody', () => {
    const lab = new Lab(1, 3);
    assert.deepEqual(
      lab.members.map(({ share }) => share),
      [1, 0, 0],
    );
    // Asked once, not again before five pulses later.
    lab.round([0, 0, 1]);
    for (let n = 0; n < 4; n++) lab.round([0, 0, 0]);
    lab.round([0, 0, 1]);
    assert.deepEqual(
      lab.members.map(({ used }) => used),
      [0, 0, 1],
    );
  });

  test('places that nobody asked for do not wander', () => {
    const lab = new Lab(7, 3);
    lab.round([0, 0, 0]);
    for (let n = 0; n < 5; n++) {
      lab.round([0, 0, 0]);
      for (const { inbox } of lab.members) assert.deepEqual(inbox, []);
    }
  });

  test('a lowered cap lets nobody in until it is kept again, and then again as many', () => {
    const lab = new Lab(100, 2);
    for (let n = 0; n < 8; n++) lab.round([100, 100]);
    assert.equal(lab.used, 100);
    lab.desk.setCaps(new Map([['tcp', 10]]));
    for (let n = 0; n < 3; n++) lab.round([0, 0]);
    for (const member of lab.members) member.close(10);
    for (let n = 0; n < 6; n++) lab.round([100, 100]);
    assert.equal(lab.used, 80);
    for (const member of lab.members) member.close(40);
    for (let n = 0; n < 10; n++) lab.round([100, 100]);
    assert.equal(lab.used, 10);
  });

  test('the replacement of a dead worker starts with what is free, and what the dead one had is free', () => {
    const lab = new Lab(100, 2);
    for (let n = 0; n < 12; n++) lab.fill([80, 20]);
    assert.equal(lab.used, 100);
    lab.replace(0);
    assert.equal(lab.used, 20);
    for (let n = 0; n < 12; n++) lab.fill([10, 100]);
    assert.deepEqual(
      lab.members.map(({ used }) => used),
      [10, 90],
    );
  });

  test('a smaller share frees nothing before its worker has read it', () => {
    const lab = new Lab(100, 2);
    const [idle, busy] = [lab.members[0]!, lab.members[1]!];
    busy.open(100);
    for (const member of [busy, idle, idle, busy]) {
      member.pulse();
    }
    assert.equal(idle.inbox.length, 1);
    busy.read();
    busy.open(100);
    idle.open(100);
    assert.equal(lab.used, 100);
    idle.close(100);
    for (const member of [idle, busy]) {
      idle.read();
      member.pulse();
    }
    busy.read();
    assert.ok(busy.share > 50);
  });

  test('whatever happens, all workers together never use more than the cap', () => {
    const step = fc.oneof(
      fc.record({ kind: fc.constant('open' as const), worker: fc.nat(3), count: fc.nat(30) }),
      fc.record({ kind: fc.constant('close' as const), worker: fc.nat(3), count: fc.nat(30) }),
      fc.record({ kind: fc.constant('read' as const), worker: fc.nat(3), count: fc.constant(0) }),
      fc.record({ kind: fc.constant('pulse' as const), worker: fc.nat(3), count: fc.constant(0) }),
      fc.record({ kind: fc.constant('die' as const), worker: fc.nat(3), count: fc.constant(0) }),
    );
    fc.assert(
      fc.property(
        fc.integer({ min: 1, max: 40 }),
        fc.integer({ min: 2, max: 4 }),
        fc.array(step, { maxLength: 60 }),
        (cap, workers, steps) => {
          const lab = new Lab(cap, workers);
          for (const { kind, worker, count } of steps) {
            const member = lab.members[worker % workers]!;
            if (kind === 'open') member.open(count);
            else if (kind === 'close') member.close(count);
            else if (kind === 'read') member.read();
            else if (kind === 'pulse') {
              member.pulse();
            } else lab.replace(worker % workers);
            assert.ok(lab.used <= cap, `${lab.used} of ${cap} after ${kind}`);
          }
          // And with demand at the first worker only, it ends up with all.
          for (const member of lab.members) member.close(1000);
          for (let n = 0; n < 25; n++) lab.round([1000]);
          assert.equal(lab.members[0]!.used, cap);
        },
      ),
      { numRuns: 150 },
    );
  });
});
