import type { Finding } from '../../src/config/findings.js';
import { parseConfiguration, type ParseResult, type Surroundings } from '../../src/config/load.js';
import type { KernelMode } from '../../src/model/configuration.js';

/* Configurations as an operator writes them: valid ones, and what tests change in them. */

type Item = Readonly<Record<string, unknown>>;

export interface Example {
  readonly [key: string]: unknown;
  readonly frontends: readonly Item[];
  readonly probes: readonly Item[];
  readonly backendPools: readonly Item[];
  readonly rules: readonly Item[];
}

/** What an example has otherwise: keys of its one frontend, probe, pool and rule; any other key is one of the top. */
export interface Change {
  readonly [key: string]: unknown;
  readonly frontend?: Item;
  readonly probe?: Item;
  /** `backends` may be addresses. */
  readonly pool?: Item;
  readonly rule?: Item;
  readonly dataPlane?: Item;
  /** What it has besides. Rules are as the first one, called "second", but for what is said. */
  readonly more?: {
    readonly frontends?: readonly Item[];
    readonly probes?: readonly Item[];
    readonly pools?: readonly Item[];
    readonly rules?: readonly Item[];
  };
}

/** One ordinary TCP rule, 443 to 6443, without a single finding under either `compat`. */
export function example(change: Change = {}): Example {
  return changed({ protocol: 'tcp', frontendPort: 443, backendPort: 6443 }, change);
}

/** An HA-ports rule on 8000-8099. Without findings too. */
export function haExample(change: Change = {}): Example {
  return changed({ haPorts: true, listenPorts: '8000-8099' }, change);
}

export const KERNEL_MODES: readonly KernelMode[] = ['nat', 'floating-l2', 'floating-routed', 'next-hop'];

/** As haExample, on the kernel data plane and fit for the mode; `kernel` is over what the mode needs. */
export function kernelExample(mode: KernelMode, kernel: Item = {}, change: Change = {}): Example {
  const isNextHop = mode === 'next-hop';
  const floating = mode.startsWith('floating') ? { floatingIp: true } : {};
  // A preset that appliances need, and long idle times: nothing to note.
  const calm = isNextHop ? { flowPolicy: 'firewall', idleTimeout: { tcp: '1h' } } : {};
  const l2 = mode === 'floating-l2' ? { interface: 'eth0' } : {};
  return haExample({
    ...change,
    dataPlane: { kind: 'kernel', kernel: { mode, ...l2, ...kernel }, ...change.dataPlane },
    frontend: { ...(isNextHop && { address: '0.0.0.0' }), ...change.frontend },
    rule: { ...floating, ...calm, ...change.rule },
  });
}

function changed(rulePorts: Item, { frontend, probe, pool, rule, more = {}, ...top }: Change): Example {
  const name = rulePorts['haPorts'] === true ? 'ha' : 'web';
  const first = { name, frontend: 'hub', backendPool: 'nvas', probe: 'alive', ...rulePorts, ...rule };
  const pools = [{ name: 'nvas', backends: ['10.0.1.1', '10.0.1.2'], ...pool }, ...(more.pools ?? [])];
  return {
    frontends: [{ name: 'hub', address: '10.0.0.1', ...frontend }, ...(more.frontends ?? [])],
    probes: [{ name: 'alive', protocol: 'http', port: 9000, ...probe }, ...(more.probes ?? [])],
    backendPools: pools.map((one: Item) => ({ ...one, backends: backendsOf(one['backends']) })),
    rules: [first, ...(more.rules ?? []).map((other) => ({ ...first, name: 'second', ...other }))],
    ...top,
  };
}

function backendsOf(written: unknown): unknown {
  if (!Array.isArray(written)) return written;
  return written.map((one: unknown) => (typeof one === 'string' ? { address: one } : one));
}

/** What comes of a configuration: its JSON is parsed, as the program does. */
export function parse(written: object, surroundings?: Surroundings): ParseResult {
  return parseConfiguration(JSON.stringify(written, null, 2), surroundings);
}

/** `error LB_LOOP rules[0].backendPort` */
export function briefly({ severity, code, path }: Finding): string {
  return `${severity} ${code} ${path}`;
}
