import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { FlowPage } from '../../../../src/planes/contract.js';
import { compileProgram } from '../../../../src/planes/kernel/program.js';
import { Stopping } from '../../../../src/planes/kernel/stop.js';
import { FakeClock } from '../../../support/fake-clock.js';
import { KernelStates, oneRule } from '../../../support/kernel-states.js';

const DEADLINE_MS = 5000;

test('run() counts a flow that began just before, and finishes while the kernel is told to take no more', async () => {
  const clock = new FakeClock();
  const flow = (id: number) => ({ id, tuple: { protocol: 'tcp' } }) as unknown as FlowPage['flows'][number];
  // What conntrack has, and what the plane has heard of it.
  let inKernel = [flow(1), flow(2)];
  let known = [flow(1)];
  const flows = {
    freshen: () => {
      known = [...inKernel];
      return Promise.resolve();
    },
    page: () => Promise.resolve({ flows: known }),
  };
  const put = () => {
    inKernel = [flow(1)];
    return Promise.resolve();
  };
  const program = compileProgram((await KernelStates.create()).state(oneRule(), { tableSize: 251 }));
  const stopping = new Stopping({ clock, flows, put });
  stopping.shorten(DEADLINE_MS);
  const report = stopping.run(program);
  await clock.advanceAsync(3 * DEADLINE_MS, 250);
  assert.deepEqual(await report, { finished: 1, reset: 1 });
});
