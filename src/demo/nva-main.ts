import { parseIpAddress } from '../model/address.js';
import { BalancerError, errorMessage } from '../model/errors.js';
import { parsePortSet } from '../model/ports.js';
import { SampleNva, type SampleNvaOptions } from './nva.js';

/** What the process tells the one that started it, once. */
export type NvaMessage =
  | { readonly type: 'ready'; readonly healthPort: number }
  | { readonly type: 'failed'; readonly message: string };

/** One sample NVA as a process of its own: `nva-main.js <name> <address> <ports> <health port>`. */
async function main(args: readonly string[]): Promise<void> {
  const nva = new SampleNva(parseArguments(args));
  if (process.send !== undefined) {
    // Ctrl-C reaches the whole terminal: haports must still find its backends while it drains, and stops them after.
    process.on('SIGINT', () => undefined);
    // haports is gone, however it went; with its sockets closed nothing keeps this process.
    process.on('disconnect', () => void nva.stop());
  }
  await nva.start();
  tell({ type: 'ready', healthPort: nva.healthPort });
}

function parseArguments([
  name,
  addressText = '',
  portsText = '',
  healthText = '',
]: readonly string[]): SampleNvaOptions {
  const address = parseIpAddress(addressText);
  const ports = parsePortSet(portsText);
  const healthPort = Number(healthText);
  const isPort = Number.isInteger(healthPort) && healthPort >= 0 && healthPort <= 65_535;
  if (name === undefined || address === undefined || ports === undefined || healthText === '' || !isPort) {
    const message = 'Usage: nva-main.js <name> <address> <ports, as 8000-8099> <health port>';
    throw new BalancerError(message, { code: 'LB_USAGE', source: 'usage' });
  }
  return { name, address, ports, healthPort };
}

function tell(message: NvaMessage): void {
  if (process.send !== undefined) process.send(message);
  else process.stdout.write(`${JSON.stringify(message)}\n`);
}

try {
  await main(process.argv.slice(2));
} catch (error) {
  process.exitCode = 1;
  if (process.send === undefined) process.stderr.write(`${errorMessage(error)}\n`);
  else
    process.send({ type: 'failed', message: errorMessage(error) } satisfies NvaMessage, () =>
      process.disconnect(),
    );
}
