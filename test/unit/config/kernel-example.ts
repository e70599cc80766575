import { brief as allFindings, haExample, type Example } from './example.js';

export type Change = (raw: Example) => void;

const DEFAULTS: Readonly<Record<string, unknown>> = {
  nat: { mode: 'nat' },
  'floating-l2': { mode: 'floating-l2', interface: 'eth0' },
  'floating-routed': { mode: 'floating-routed' },
  'next-hop': { mode: 'next-hop' },
};

export type Mode = 'nat' | 'floating-l2' | 'floating-routed' | 'next-hop';
export const MODES: readonly Mode[] = ['nat', 'floating-l2', 'floating-routed', 'next-hop'];

/** An HA-ports rule on the kernel data plane that fits the mode; `kernel` is over what the mode needs. */
export function kernelExample(
  mode: Mode,
  kernel: Record<string, unknown> = {},
  change: Change = () => undefined,
): Example {
  return haExample((raw) => {
    raw['dataPlane'] = { kind: 'kernel', kernel: { ...(DEFAULTS[mode] as object), ...kernel } };
    if (mode === 'next-hop') raw.frontends[0] = { ...raw.frontends[0], address: '0.0.0.0' };
    const floating = mode.startsWith('floating') ? { floatingIp: true } : {};
    // A preset that appliances need, and long idle times: nothing to note.
    const calm = mode === 'next-hop' ? { flowPolicy: 'firewall', idleTimeout: { tcp: '1h' } } : {};
    raw.rules[0] = { ...raw.rules[0], ...floating, ...calm };
    change(raw);
  });
}

/** Findings, but for those on Azure's rules and what every configuration of these modes is told. */
export function told(raw: Example): readonly string[] {
  return allFindings(raw).filter((line) => !/ V\d+ | LB_KERNEL_RETURN /.test(line));
}

export const ruleWith =
  (change: Record<string, unknown>): Change =>
  (raw) => {
    raw.rules[0] = { ...raw.rules[0], ...change };
  };
export const poolWith =
  (change: Record<string, unknown>): Change =>
  (raw) =>
    void Object.assign(raw.backendPools[0] ?? {}, change);
export const frontendWith =
  (change: Record<string, unknown>): Change =>
  (raw) => {
    raw.frontends[0] = { ...raw.frontends[0], ...change };
  };
export const topWith =
  (change: Record<string, unknown>): Change =>
  (raw) =>
    void Object.assign(raw, change);
export const planeWith =
  (change: Record<string, unknown>): Change =>
  (raw) =>
    void Object.assign(raw['dataPlane'] as object, change);
