// A TCP lab in a process of its own, to be run under a low descriptor limit: argv is the backend's port and 0 or 1
// descriptors to waste. Prints the lab's port; when its input ends, prints the drops and ends.
import { createSocket } from 'node:dgram';
import { testState } from '../../../../support/forwarding-state.js';
import { freePort, TcpLab } from './tcp-lab.js';

const [backendPort, waste] = process.argv.slice(2).map(Number);
if (backendPort === undefined || waste === undefined) throw new TypeError('Usage: BACKEND-PORT WASTE');

const port = await freePort('127.0.0.1');
const rule = { portOffset: backendPort - port };
const lab = await TcpLab.open(testState({ backends: ['127.0.0.2'], rule }), { port });
if (waste > 0) createSocket('udp4').bind(0, '127.0.0.1');

process.stdout.write(`${port}\n`);
process.stdin.resume().on('end', () => {
  process.stdout.write(`${JSON.stringify(lab.drops())}\n`, () => process.kill(process.pid, 'SIGKILL'));
});
