import assert from 'node:assert/strict';
import { before, describe, test } from 'node:test';
import { compileProgram } from '../../src/planes/kernel/program.js';
import { KernelPlane } from '../../src/planes/kernel/plane.js';
import type { ForwardingState } from '../../src/model/forwarding.js';
import type { Tools } from '../../src/planes/netfilter/tools.js';
import { systemClock as clock } from '../../src/runtime/clock.js';
import { campaign } from '../support/campaign.js';
import { eventually } from '../support/deadline.js';
import { FailingTools } from '../support/failing-tools.js';
import { KernelStates, oneRule } from '../support/kernel-states.js';
import { useLab, whyNoNamespaces } from '../support/lab.js';
import { NO_FLOWS } from '../support/no-flows.js';

/** With two changes of the configuration, or four. */
const APPLIES = campaign({ share: 60, whole: 200 });
const TABLE_SIZE = 251;
const BACKENDS = [1, 2, 3, 4, 5];

describe('KernelPlane where a tenth of all calls of tools fails', { skip: whyNoNamespaces() }, () => {
  const { lb } = useLab({ lb: {} }).hosts;
  let states: KernelStates;
  before(async () => {
    states = await KernelStates.create();
  });

  function state(index: number): ForwardingState {
    // Each apply changes somebody's health; each fiftieth the configuration.
    const count = 3 + (Math.floor(index / 50) % 3);
    const down = BACKENDS.filter((n) => (index * 7 + n * 3) % 5 < 2);
    const backends = BACKENDS.slice(0, count).map((n) => `127.0.0.${10 + n}`);
    const raw = oneRule({ backends, rule: { probe: 'alive' } });
    const health = Object.fromEntries(down.map((n) => [`b${10 + n}`, 'down' as const]));
    return states.state(raw, { tableSize: TABLE_SIZE }, { health });
  }

  function planeOver(tools: Tools): KernelPlane {
    return new KernelPlane(
      {
        ...{ clock, tools, flows: NO_FLOWS },
        lock: { take: () => Promise.resolve(), release: () => undefined },
        networks: () => [],
        interfaces: () => [],
        onWarning: () => undefined,
      },
      { instance: 'haports', pollMs: 300 },
    );
  }

  /** Slots in the kernel by nft's own JSON, which the plane never reads. */
  async function slots(): Promise<ReadonlyMap<number, number>> {
    const json = await lb.must('nft -j list map inet haports to-nvas.alive');
    const { nftables } = JSON.parse(json) as { nftables: { map?: { elem?: [number, number][] } }[] };
    return new Map(nftables.flatMap(({ map }) => map?.elem ?? []));
  }

  /** Of the table: one that was made anew has another. */
  async function handle(): Promise<string> {
    const table = await lb.must('nft -a -t list table inet haports');
    return /table inet haports \{ # handle (\d+)/.exec(table)?.[1] ?? 'none';
  }

  function wanted(last: ForwardingState): ReadonlyMap<number, number> {
    const [table] = compileProgram(last).tables;
    return new Map([...(table?.marks ?? [])].map((mark, slot) => [slot, mark]));
  }

  test(`the kernel has what the last of ${APPLIES} applies wanted`, async (t) => {
    const tools = new FailingTools(lb.tools, 20_261_120);
    const plane = planeOver(tools);
    await plane.start(state(0));
    assert.deepEqual(await slots(), wanted(state(0)));
    tools.share = 0.1;
    let refused = 0;
    for (let index = 1; index <= APPLIES; index++) {
      await plane.apply(state(index)).catch(() => refused++);
    }
    await plane.apply(state(APPLIES)).catch(() => refused++);
    assert.ok(tools.failed.length > APPLIES / 10, `${tools.failed.length} calls failed`);
    assert.ok(tools.failed.some((line) => line.startsWith('nft -f')));
    await eventually(
      async () => {
        const [found, want] = [await slots(), wanted(state(APPLIES))];
        return found.size === want.size && [...want].every(([slot, mark]) => found.get(slot) === mark);
      },
      20_000,
      'the kernel to have what was wanted last',
    );
    const { failures, lastFailure, state: standing } = plane.kernelReport();
    t.diagnostic(`${tools.failed.length} calls failed, ${failures} told, ${refused} applies refused`);
    assert.ok(failures >= 10);
    assert.match(lastFailure?.text ?? '', /was made to fail: Cannot allocate memory/);
    assert.notEqual(standing, 'absent');
    tools.share = 0;
    await plane.stop(0);
    assert.doesNotMatch(await lb.must('nft list tables'), /haports/);
  });

  test('adopts what a process before has left, whose elements are of another state', async () => {
    const tools = lb.tools;
    const first = planeOver(tools);
    await first.start(state(0));
    const before = await handle();
    await first.stop(0, 'at-once');
    const second = planeOver(tools);
    await second.start(state(1));
    assert.equal(await handle(), before, 'the table is the same');
    assert.deepEqual(await slots(), wanted(state(1)));
    await second.stop(0, 'at-once');
    await lb.nft('add chain inet haports stranger');
    const third = planeOver(tools);
    await third.start(state(1));
    assert.notEqual(await handle(), before, 'what others have altered is replaced');
    assert.deepEqual(await slots(), wanted(state(1)));
    await third.stop(0);
  });
});
