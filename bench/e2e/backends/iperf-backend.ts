import type { OwnProcess, OwnProcesses } from '../own-processes.js';

/** An iperf3 server on each address. */
export function startIperfBackends(
  processes: OwnProcesses,
  options: { readonly cores: string; readonly addresses: readonly string[]; readonly port: number },
): readonly OwnProcess[] {
  return options.addresses.map((address) =>
    processes.start({ role: 'backend', cores: options.cores }, `iperf3 server ${address}`, [
      ...['iperf3', '-s', '-B', address, '-p', String(options.port)],
    ]),
  );
}
