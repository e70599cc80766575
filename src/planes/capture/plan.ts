import type { IpAddress } from '../../model/address.js';
import type { CaptureOptions, CapturePlan } from '../../model/capture.js';
import { BalancerError } from '../../model/errors.js';

/** A listening TCP socket that was handed in, which must be transparent: that cannot be seen from outside. */
export interface HandedTcpSocket {
  readonly descriptor: number;
  readonly address: IpAddress;
  readonly port: number;
}

export interface DecidedCapture {
  readonly plan: CapturePlan;
  /** One sentence for the log and `status`. */
  readonly why: string;
}

/** What a process that captures has to go by. */
export interface CaptureSituation {
  readonly options: CaptureOptions;
  /** Of the frontends. */
  readonly families: ReadonlySet<4 | 6>;
  readonly handed: readonly HandedTcpSocket[];
}

const HOW_TO_HAND_IN =
  'a systemd socket unit with Transparent=yes (systemd.socket(5)), or any launcher that sets IP_TRANSPARENT and LISTEN_FDS';

/**
 * How ports are captured for the life of the process. `auto` takes tproxy where it can be had. Throws `LB_USAGE` where
 * tproxy is demanded and its sockets are not there, or do not fit together. Pure.
 */
export function decideCapture({ options, families, handed }: CaptureSituation): DecidedCapture {
  const { mode, udp, port, block } = options;
  const dnatMap = { tcp: 'dnat-map', udp, port, block } as const;
  if (mode === 'dnat-map') return { plan: dnatMap, why: 'The configuration asks for dnat-map' };
  const sockets = [...families].sort().map((family) => ({
    family,
    socket: handed.find(({ address }) => address.family === family),
  }));
  const missing = sockets.filter(({ socket }) => socket === undefined).map(({ family }) => family);
  if (missing.length > 0 || sockets.length === 0) {
    const what = `no listening TCP socket was handed in for ${missing.map((family) => `IPv${family}`).join(' and ')}`;
    if (mode === 'auto') return { plan: dnatMap, why: `Chosen because ${what}` };
    throw usage(`Capture mode tproxy: ${what}, must be: by ${HOW_TO_HAND_IN}`);
  }
  const ports = new Set(sockets.map(({ socket }) => socket?.port));
  const [first] = sockets;
  if (ports.size > 1 || first?.socket === undefined) {
    const what = `the sockets handed in listen on ports ${[...ports].join(' and ')}`;
    if (mode === 'auto') return { plan: dnatMap, why: `Chosen because ${what}, not on one` };
    throw usage(`Capture mode tproxy: ${what}, must be on one port`);
  }
  const descriptors = Object.fromEntries(
    sockets.map(({ family, socket }) => [family, socket?.descriptor ?? -1]),
  ) as Record<4 | 6, number>;
  return {
    plan: { tcp: 'tproxy', udp, port: first.socket.port, block, descriptors },
    why:
      mode === 'auto'
        ? 'Chosen because a listening TCP socket was handed in for every family'
        : 'The configuration asks for tproxy',
  };
}

/** `capture dnat-map, udp redirect`. */
export function captureMode({ tcp, udp }: CapturePlan): string {
  return `capture ${tcp}, udp ${udp}`;
}

function usage(message: string): BalancerError {
  return new BalancerError(message, { code: 'LB_USAGE', source: 'usage' });
}
