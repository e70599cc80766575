import assert from 'node:assert/strict';
import { once } from 'node:events';
import { connect } from 'node:net';
import { CapturedEnds } from '../../../../../src/planes/userspace/captured-ports.js';
import { TransparentSockets } from '../../../../../src/planes/userspace/tcp/listener.js';
import { ipAddress, parseCidr } from '../../../../../src/model/address.js';
import type { CapturePlan } from '../../../../../src/model/capture.js';
import {
  aState,
  backendOn,
  bindingOf,
  CaptureLab,
  expectedLine,
  host,
  ports,
  tellOf,
} from './captured-lab.js';
import { freePort } from './tcp-lab.js';

/* Has a listening socket as descriptor 3, on all addresses and the port given. Says `all is well`, or what is not. */

const port = Number(process.argv[2]);
const plan: CapturePlan = {
  tcp: 'tproxy',
  udp: 'bind',
  port: 61000,
  block: parseCidr('240.0.0.0/4')!,
  descriptors: { 4: 3 },
};
const backendPort = await freePort(host(200));
const state = aState(ports(`${port}`), ports(`${port}`), { portOffset: backendPort - port });
const ends = new CapturedEnds(state.configuration, 'tcp', plan);
const backend = await backendOn(backendPort);
const transparent = new TransparentSockets(plan);
const lab = new CaptureLab(state, { capture: plan, transparent });
const binding = bindingOf(state, 61000, ends);

// Serves frontend and port that the connection was made to, also one that came before.
assert.equal(transparent.has(binding), true);
const first = await lab.open(binding);
const early = tellOf(host(2), port);
first.serve();
assert.match(await early, expectedLine(host(2), port));
assert.match(await tellOf(host(1), port), expectedLine(host(1), port));
assert.deepEqual([lab.arrivals('hub-rule'), lab.arrivals('spoke-rule')], [1, 1]);
assert.equal(await tellOf(host(3), port), 'reset');
assert.deepEqual(lab.drops('hub-rule'), { 'unknown-origin': 1 });

// While it is not wanted everybody is turned away.
first.close();
assert.equal(await tellOf(host(1), port), 'reset');
assert.equal(lab.arrivals('hub-rule'), 1);
const again = await lab.open(bindingOf(state, 61000, ends));
again.serve();
assert.match(await tellOf(host(1), port), expectedLine(host(1), port));
// A second end of the first listener must not take it away.
first.destroy();
assert.match(await tellOf(host(2), port), expectedLine(host(2), port));

// No socket of that family was handed in.
const other = { ...bindingOf(state, 61000, ends), address: ipAddress('::') };
assert.equal(transparent.has(other), false);
await assert.rejects(lab.open(other), { code: 'EBADF' });

// For good: its owner outside has closed it too.
transparent.retire();
again.close();
await assert.rejects(once(connect({ host: host(1), port }), 'connect'), { code: 'ECONNREFUSED' });
lab.close();
backend.close();
process.stdout.write('all is well\n');
