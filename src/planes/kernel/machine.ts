import { isLoopback } from '../../model/address.js';
import { BalancerError } from '../../model/errors.js';
import type { ToolOutcome, Tools } from '../netfilter/tools.js';
import type { KernelInput } from './program.js';

/** A setting of the machine that a mode depends on. */
export interface NeededSysctl {
  /** `net.ipv4.ip_forward`. */
  readonly key: string;
  readonly value: number;
  /** What happens without it. */
  readonly why: string;
  /** Whether nothing at all is forwarded without it. */
  readonly fatal: boolean;
}

/** One that is not as it must be. */
export interface WrongSysctl extends NeededSysctl {
  readonly found: number;
}

/** What the mode needs. `interfaces`: names of the machine's links. */
export function neededSysctls(input: KernelInput, interfaces: readonly string[]): readonly NeededSysctl[] {
  const { mode } = input.options;
  const families = ([4, 6] as const).filter((family) =>
    input.frontends.some(({ address }) => address.family === family),
  );
  // The ingress of an interface sends on by itself, and a machine that only talks to itself forwards nothing.
  const forwards = mode !== 'floating-l2' && input.backends.some(({ address }) => !isLoopback(address));
  const forwarding = families.map((family) => ({
    key: family === 4 ? 'net.ipv4.ip_forward' : 'net.ipv6.conf.all.forwarding',
    ...{ value: 1, fatal: forwards, why: `no packet of IPv${family} is forwarded` },
  }));
  const redirects = ['all', ...interfaces].map((name) => ({
    key: `net.ipv4.conf.${slashed(name)}.send_redirects`,
    ...{ value: 0, fatal: false, why: 'senders are told of ways past this machine' },
  }));
  const reversePath = ['all', ...interfaces].map((name) => ({
    key: `net.ipv4.conf.${slashed(name)}.rp_filter`,
    ...{ value: 0, fatal: false, why: 'packets that are answered another way are dropped' },
  }));
  const isFour = families.includes(4);
  return [
    ...(forwards ? forwarding : []),
    ...(isFour && forwards ? redirects : []),
    ...(isFour && mode !== 'nat' ? reversePath : []),
    {
      key: 'net.netfilter.nf_conntrack_acct',
      ...{ value: 1, fatal: false, why: 'bytes and packets of flows are not counted' },
    },
    {
      key: 'net.netfilter.nf_conntrack_timestamp',
      ...{ value: 1, fatal: false, why: 'it is not known how old flows are that began before this process' },
    },
  ];
}

/** Those that are otherwise. A kernel without the setting needs it not, or not yet. Rejects never. */
export async function wrongSysctls(
  tools: Tools,
  needed: readonly NeededSysctl[],
): Promise<readonly WrongSysctl[]> {
  const found = await readSysctls(
    tools,
    needed.map(({ key }) => key),
  );
  return needed.flatMap((one) => {
    const value = found.get(one.key);
    return value === undefined || value === one.value ? [] : [{ ...one, found: value }];
  });
}

/** Sets them. Those that could not be are given back. */
export async function setSysctls(
  tools: Tools,
  wrong: readonly WrongSysctl[],
): Promise<readonly WrongSysctl[]> {
  if (wrong.length === 0) return [];
  await tools.run('sysctl', ['-q', '-w', ...wrong.map(({ key, value }) => `${key}=${value}`)]);
  return wrongSysctls(tools, wrong);
}

/** `net.ipv4.ip_forward is 0, must be 1: no packet of IPv4 is forwarded. Run: sysctl -w net.ipv4.ip_forward=1`. */
export function sysctlText({ key, value, found, why }: WrongSysctl): string {
  return `${key} is ${found}, must be ${value}: ${why}. Run: sysctl -w ${key}=${value}`;
}

/** The error of a start that cannot work; undefined: it can. */
export function sysctlError(wrong: readonly WrongSysctl[]): BalancerError | undefined {
  const fatal = wrong.filter((one) => one.fatal);
  if (fatal.length === 0) return undefined;
  const message = `${fatal.map(sysctlText).join('; ')}; or set dataPlane.kernel.manageSysctls`;
  return new BalancerError(message, { code: 'LB_KERNEL_UNSUPPORTED', source: 'system' });
}

async function readSysctls(tools: Tools, keys: readonly string[]): Promise<ReadonlyMap<string, number>> {
  if (keys.length === 0) return new Map();
  // It fails where one is not there, and tells the others all the same.
  const { stdout }: ToolOutcome = await tools.run('sysctl', keys);
  return new Map(
    stdout.split('\n').flatMap((line) => {
      const [key, value] = line.split(' = ');
      return key === undefined || value === undefined ? [] : [[key.trim(), Number(value)] as const];
    }),
  );
}

/** sysctl(8) has dots in names of interfaces as slashes. */
function slashed(name: string): string {
  return name.replaceAll('.', '/');
}

export interface MachineDeps {
  readonly tools: Tools;
  /** Names of the machine's links. */
  readonly interfaces: () => readonly string[];
  /** What people should know about this machine. */
  readonly onWarning: (text: string) => void;
}

/** Settings of the machine: set where that is allowed, else told of. Rejects where nothing could be forwarded. */
export async function prepareMachine(
  { tools, interfaces, onWarning }: MachineDeps,
  input: KernelInput,
): Promise<void> {
  let wrong = await wrongSysctls(tools, neededSysctls(input, interfaces()));
  if (input.options.manageSysctls) {
    const left = await setSysctls(tools, wrong);
    for (const one of wrong) {
      if (left.some(({ key }) => key === one.key)) continue;
      onWarning(`${one.key} was ${one.found} and is ${one.value} now, as manageSysctls asks`);
    }
    wrong = left;
  }
  const error = sysctlError(wrong);
  if (error !== undefined) throw error;
  // Whoever tells of flows says what he misses of these.
  for (const one of wrong) if (!one.key.startsWith('net.netfilter.')) onWarning(sysctlText(one));
}
