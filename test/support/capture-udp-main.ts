import { createSocket } from 'node:dgram';
import { createInterface } from 'node:readline';
import { UserspacePlane } from '../../src/planes/userspace/plane.js';
import { ipAddress, parseCidr } from '../../src/model/address.js';
import { Conntrack, conntrackOrigins } from '../../src/planes/netfilter/conntrack.js';
import { systemTools } from '../../src/planes/netfilter/tools.js';
import { systemClock as clock } from '../../src/runtime/clock.js';
import { createHasher } from '../../src/selection/flow-hash.js';
import { testState } from './forwarding-state.js';

/*
 * A userspace plane that serves all UDP ports of one captured frontend, inside a namespace. Arguments: frontend,
 * backend, private port. The backend's port 9 echoes here, too. Prints `ready`; then for each line that it reads, a line of JSON: drops
 * by reason and the number of flows.
 */

const [frontend = '', backend = '', port = ''] = process.argv.slice(2);
const block = parseCidr('240.0.0.0/4');
if (block === undefined) throw new Error('No block');
const plane = new UserspacePlane(
  {
    ...{ clock, hash: await createHasher(), ownAddresses: () => [] },
    origins: conntrackOrigins(new Conntrack({ clock, tools: systemTools() })),
  },
  {
    ...{ flowEvents: false, worker: 0, workers: 1 },
    capture: { udp: 'redirect', port: Number(port), block },
  },
);
const report = await plane.start(
  testState({
    backends: [backend],
    frontend: { address: ipAddress(frontend) },
    rule: { protocols: ['udp'] },
  }),
);
if (report.listeners.udp !== 1) throw new Error(JSON.stringify(report));
const verbatim = createSocket(backend.includes(':') ? 'udp6' : 'udp4');
verbatim.on('message', (datagram, from) => verbatim.send(datagram, from.port, from.address));
verbatim.bind({ address: backend, port: 9 }, () => process.stdout.write('ready\n'));
createInterface({ input: process.stdin }).on('line', () => void tell());

async function tell(): Promise<void> {
  const { arrivals } = await plane.counters();
  const drops = arrivals.find(({ protocol }) => protocol === 'udp')?.drops ?? {};
  process.stdout.write(`${JSON.stringify({ drops, flows: plane.flowCount() })}\n`);
}
