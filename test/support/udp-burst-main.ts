import { createSocket } from 'node:dgram';

/*
 * Opens UDP flows at a rate: one datagram each, from one port to as many ports. Arguments: address, first port, flows, flows a
 * second, milliseconds that the process stays. Prints the milliseconds it took.
 */

const [address = '', first = '1', flows = '1000', perSecond = '1000', source = ''] = process.argv.slice(2);
const socket = createSocket(address.includes(':') ? 'udp6' : 'udp4');
const startedMs = performance.now();
let sent = 0;

function send(): void {
  const due = Math.min(
    Number(flows),
    Math.floor(((performance.now() - startedMs) * Number(perSecond)) / 1000),
  );
  for (; sent < due; sent++) socket.send('x', Number(first) + sent, address);
  if (sent < Number(flows)) setTimeout(send, 1);
  else
    setTimeout(() => {
      process.stdout.write(`${Math.round(performance.now() - startedMs)}\n`);
      socket.close();
    }, 50);
}

socket.on('error', () => undefined);
socket.bind({ port: 0, ...(source === '' ? {} : { address: source }) }, send);
