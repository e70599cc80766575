import { createInterface } from 'node:readline';
import { fileURLToPath } from 'node:url';
import { WorkerSupervisor } from '../../src/planes/workers/supervisor.js';
import { WorkerGroup } from '../../src/planes/workers/group.js';
import { forkSharingWorker, forkWorker, type WorkerProcess } from '../../src/planes/workers/process.js';
import { tryTcpPort } from '../../src/planes/userspace/sockets/net.js';
import { rendezvousOwner } from '../../src/planes/userspace/listen-plan.js';
import { UserspacePlane } from '../../src/planes/userspace/plane.js';
import { ipAddress, parseCidr } from '../../src/model/address.js';
import type { CapturePlan } from '../../src/model/capture.js';
import { systemClock as clock } from '../../src/runtime/clock.js';
import { createHasher } from '../../src/selection/flow-hash.js';
import { relinked, testFrontend, testRule, testState } from './forwarding-state.js';

/*
 * A userspace plane that serves all TCP ports of two captured frontends, inside a namespace. Prints `ready`; then a line of JSON for each line that it reads: drops by reason, flows,
 * workers lost. The line `kill` kills a worker first.
 */

/** What stands on the command line, as JSON. */
export interface TcpPlaneOptions {
  readonly workers: number;
  readonly port: number;
  readonly frontends: readonly string[];
  readonly backend: string;
}

const { workers, port, frontends, backend } = JSON.parse(process.argv[2] ?? '') as TcpPlaneOptions;
const block = parseCidr('240.0.0.0/4');
if (block === undefined) throw new Error('No block');
const capture: CapturePlan = { udp: 'bind', port, block };
const state = testState({ backends: [backend] });
const configuration = relinked({
  ...state.configuration,
  workers,
  frontends: frontends.map((text) => testFrontend({ name: text, address: ipAddress(text) })),
  rules: frontends.map((text) => testRule({ name: text, frontend: text, protocols: ['tcp'] })),
});
const launched: WorkerProcess[] = [];
const script = fileURLToPath(new URL('../../src/worker.js', import.meta.url));
const hash = await createHasher();

function launch(fork: typeof forkWorker): WorkerProcess {
  const worker = fork(script);
  launched.push(worker);
  return worker;
}

function createPlane(): UserspacePlane | WorkerSupervisor | WorkerGroup {
  const options = { flowEvents: false, worker: 0, workers };
  if (workers === 0) {
    return new UserspacePlane({ clock, hash, ownAddresses: () => [] }, { ...options, workers: 1, capture });
  }
  if (workers === 1)
    return new WorkerSupervisor({ clock, launch: () => launch(forkWorker) }, { ...options, capture });
  const ownerOf = rendezvousOwner(hash, workers);
  return new WorkerGroup(
    { clock, launch: () => launch(forkSharingWorker), tryTcpPort, ownerOf },
    { flowEvents: false, workers, capture },
  );
}

const plane = createPlane();
const report = await plane.start({ ...state, configuration, viewOfRule: frontends.map(() => 0) });
if (report.listeners.tcp !== frontends.length) throw new Error(JSON.stringify(report));
process.stdout.write('ready\n');
for await (const line of createInterface({ input: process.stdin })) {
  if (line === 'kill') {
    const worker = launched.at(-1);
    worker?.kill();
    await worker?.exited;
  }
  const { arrivals, workersLost } = await plane.counters();
  const drops = Object.fromEntries(arrivals.map((one) => [one.rule, one.drops]));
  process.stdout.write(`${JSON.stringify({ drops, workersLost, flows: plane.flowCount() })}\n`);
}
// Nothing of it is left then: the process ends by itself.
await plane.stop(0);
