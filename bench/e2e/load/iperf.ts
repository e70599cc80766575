import type { OwnProcesses } from '../own-processes.js';

export interface IperfOptions {
  readonly cores: string;
  readonly host: string;
  readonly port: number;
  /** The client's address, `-B`. */
  readonly from: string;
  readonly streams: number;
  readonly seconds: number;
  /** From the backend to the client, `-R`. */
  readonly download: boolean;
  /** UDP: payload bytes a datagram, and datagrams a second over all streams. */
  readonly udp?: { readonly bytes: number; readonly perSecond: number };
}

/** What the receiving end counted. `lost` and `datagrams` for UDP only. */
export interface IperfResult {
  readonly bytes: number;
  readonly seconds: number;
  readonly datagrams: number;
  readonly lost: number;
}

/** One iperf3 client run. Rejects when it fails, also when it says so only in its JSON. */
export async function runIperf(processes: OwnProcesses, options: IperfOptions): Promise<IperfResult> {
  const { udp } = options;
  const perStream = udp === undefined ? 0 : (udp.perSecond * udp.bytes * 8) / options.streams;
  const output = await processes.run(
    { role: 'client', cores: options.cores },
    'iperf3',
    [
      ...['iperf3', '-J', '-c', options.host, '-p', String(options.port), '-B', options.from],
      ...['-P', String(options.streams), '-t', String(options.seconds), '--connect-timeout', '3000'],
      ...(options.download ? ['-R'] : []),
      ...(udp === undefined ? [] : ['-u', '-l', String(udp.bytes), '-b', String(Math.round(perStream))]),
    ],
    (options.seconds + 10) * 1000,
  );
  return parseIperf(output);
}

interface IperfSum {
  readonly bytes?: number;
  readonly seconds?: number;
  readonly packets?: number;
  readonly lost_packets?: number;
}

export function parseIperf(output: string): IperfResult {
  const report = JSON.parse(output) as {
    readonly error?: string;
    readonly end?: { readonly sum_received?: IperfSum; readonly sum?: IperfSum };
  };
  if (report.error !== undefined) throw new Error(`iperf3: ${report.error}`);
  // UDP: `sum` has what the receiver reported; TCP: `sum_received`.
  const sum = report.end?.sum ?? report.end?.sum_received;
  if (sum?.bytes === undefined || sum.seconds === undefined) throw new Error('iperf3 gave no sum');
  return {
    bytes: sum.bytes,
    seconds: sum.seconds,
    datagrams: sum.packets ?? 0,
    lost: sum.lost_packets ?? 0,
  };
}
