// Run in a network namespace with few ephemeral ports, argv first-last: occupies them all with listeners, so that the
// kernel finds no port for an outgoing connection, and prints what a client of a balancer hears.
import { connect } from 'node:net';
import { testState } from '../../../../support/forwarding-state.js';
import { receive, TcpLab, TestServer } from './tcp-lab.js';

const [first, last] = process.argv.slice(2).map(Number);
if (first === undefined || last === undefined) throw new TypeError('Usage: FIRST-PORT LAST-PORT');

for (let port = first + 1; port <= last; port++) {
  await TestServer.listen('127.0.0.1', (socket) => socket.destroy(), port);
}
await TestServer.listen('127.0.0.2', (socket) => socket.end(`hello ${socket.remoteAddress}`), first);
const lab = await TcpLab.open(testState({ backends: ['127.0.0.2'] }), { port: first });

const unbound = connect({ host: '127.0.0.2', port: first });
const { end } = await receive(unbound);
process.stdout.write(end === 'reset' ? 'no port; ' : 'there are ports; ');

const client = connect({ host: lab.host, port: lab.port, localAddress: '127.0.0.50', localPort: 1234 });
const { text } = await receive(client);
process.stdout.write(`${text} ${JSON.stringify(lab.drops())}\n`, () => process.kill(process.pid, 'SIGKILL'));
