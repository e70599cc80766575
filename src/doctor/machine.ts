import type { ConnectTarget } from '../model/address.js';
import type { Configuration } from '../model/configuration.js';

/** How much it matters. `problem`: flows do not get through, or not all. */
export type DoctorLevel = 'fine' | 'note' | 'warning' | 'problem';

export interface DoctorFinding {
  readonly level: DoctorLevel;
  readonly text: string;
  /** Commands or steps that fix it. */
  readonly fix?: readonly string[];
}

/** Findings about the machine, a frontend or a backend. */
export interface DoctorSection {
  readonly title: string;
  readonly findings: readonly DoctorFinding[];
}

export interface ToolAnswer {
  /** Undefined where it did not run to its end. */
  readonly exitCode: number | undefined;
  readonly stdout: string;
  readonly stderr: string;
  /** `ENOENT` where it is not installed. */
  readonly failure?: string;
}

/** `connected` and `refused` came from the other end. Else an error code, `silence`, or OUT_OF_TIME. */
export type ConnectOutcome = string;

/** This machine, as it is examined; tests bring another. Nothing rejects. */
export interface DoctorMachine {
  monotonicMs(): number;
  run(tool: 'nft' | 'ip' | 'conntrack' | 'ping', args: readonly string[]): Promise<ToolAnswer>;
  /** Undefined where there is no such file, or it may not be read. */
  readText(path: string): Promise<string | undefined>;
  connect(target: ConnectTarget): Promise<ConnectOutcome>;
  /** Settings that are not as the mode needs them, in words. */
  wrongSettings(configuration: Configuration): Promise<readonly WrongSetting[]>;
  /** Why the kernel would not take the ruleset; undefined: it would. */
  refusal(configuration: Configuration): Promise<string | undefined>;
  /** What the limit of descriptors does not suffice for, of a process started as this one was. */
  descriptorShortages(configuration: Configuration): readonly string[];
}

export interface WrongSetting {
  /** `net.ipv4.ip_forward is 0, must be 1: ...`. */
  readonly text: string;
  /** Whether nothing at all is forwarded so. */
  readonly fatal: boolean;
}

/** It was not tried: the time for the whole examination is up. */
export const OUT_OF_TIME = 'out of time';

/** The same machine; after that time nothing is started that waits for other hosts. What has started ends in seconds. */
export function withinTime(machine: DoctorMachine, limitMs: number): DoctorMachine {
  const untilMs = machine.monotonicMs() + limitMs;
  const isLate = (): boolean => machine.monotonicMs() >= untilMs;
  return {
    monotonicMs: () => machine.monotonicMs(),
    run: (tool, args) =>
      tool === 'ping' && isLate()
        ? Promise.resolve({ exitCode: undefined, stdout: '', stderr: '', failure: OUT_OF_TIME })
        : machine.run(tool, args),
    readText: (path) => machine.readText(path),
    connect: (target) => (isLate() ? Promise.resolve(OUT_OF_TIME) : machine.connect(target)),
    wrongSettings: (configuration) => machine.wrongSettings(configuration),
    refusal: (configuration) => machine.refusal(configuration),
    descriptorShortages: (configuration) => machine.descriptorShortages(configuration),
  };
}

/** Whether the other end was there, whatever it said. */
export function isAlive(answer: ConnectOutcome): boolean {
  return answer === 'connected' || answer === 'refused';
}

/** The records of `ip -j`; empty where its output is no list. */
export async function ipRecords(
  machine: DoctorMachine,
  ...args: readonly string[]
): Promise<readonly Record<string, unknown>[]> {
  const { stdout } = await machine.run('ip', ['-j', ...args]);
  let parsed: unknown;
  try {
    parsed = JSON.parse(stdout);
  } catch {
    return [];
  }
  return Array.isArray(parsed)
    ? (parsed as unknown[]).filter(
        (one): one is Record<string, unknown> => typeof one === 'object' && one !== null,
      )
    : [];
}

function findingOf(level: DoctorLevel) {
  return (text: string, ...fix: readonly string[]): DoctorFinding => {
    return { level, text, fix: fix.length === 0 ? undefined : fix };
  };
}

export const problem = findingOf('problem');
export const warning = findingOf('warning');
export const note = findingOf('note');
export const fine = findingOf('fine');

/** The tool, its package in Debian and Ubuntu, and the option that prints its version. */
const TOOLS = [
  ['nft', 'nftables', '--version'],
  ['ip', 'iproute2', '-V'],
  ['conntrack', 'conntrack', '--version'],
] as const;

/** CAP_NET_ADMIN of linux/capability.h. */
const NET_ADMIN = 12n;
/** As for sockets: early enough to react. */
const NEARLY_FULL = 0.75;

/** Whether this process may change what the kernel does. */
export async function mayAdminister(machine: Pick<DoctorMachine, 'readText'>): Promise<boolean> {
  const status = (await machine.readText('/proc/self/status')) ?? '';
  const mask = /^CapEff:\s*([0-9a-f]+)/m.exec(status)?.[1];
  return mask !== undefined && ((BigInt(`0x${mask}`) >> NET_ADMIN) & 1n) === 1n;
}

/** Tools, privilege, settings, interface, and whether the kernel takes the ruleset. */
export async function examineHost(
  machine: DoctorMachine,
  configuration: Configuration,
): Promise<readonly DoctorFinding[]> {
  const tools = (await Promise.all(TOOLS.map((tool) => examineTool(machine, tool)))).flat();
  if (configuration.kernel === undefined) {
    // One that is missing does not matter then.
    const notes = tools.map((one) => (one.level === 'problem' ? { ...one, level: 'note' as const } : one));
    const shortages = machine.descriptorShortages(configuration).map((text) => warning(text));
    return [...notes, note('The userspace data plane needs none of them'), ...shortages];
  }
  const isAdmin = await mayAdminister(machine);
  const privilege = isAdmin
    ? [fine('CAP_NET_ADMIN is available'), await examineRuleset(machine, configuration)]
    : [
        problem(
          'CAP_NET_ADMIN is missing: nftables and routes cannot be changed',
          'run as root, or with AmbientCapabilities=CAP_NET_ADMIN (systemd), --cap-add NET_ADMIN (container)',
        ),
      ];
  return [
    ...tools,
    ...privilege,
    ...(await examineSettings(machine, configuration)),
    ...(await examineInterface(machine, configuration)),
    ...(await examineTracking(machine, configuration)),
  ];
}

async function examineRuleset(machine: DoctorMachine, configuration: Configuration): Promise<DoctorFinding> {
  const refusal = await machine.refusal(configuration);
  return refusal === undefined
    ? fine('The kernel takes the ruleset')
    : problem(`The ruleset is refused: ${refusal}`);
}

async function examineTool(
  machine: DoctorMachine,
  [tool, pack, args]: (typeof TOOLS)[number],
): Promise<DoctorFinding[]> {
  const answer = await machine.run(tool, [args]);
  if (answer.exitCode === 0) return [fine(answer.stdout.split('\n')[0] ?? tool)];
  return [problem(`${tool} is not installed or does not run`, `apt-get install ${pack}`)];
}

async function examineSettings(
  machine: DoctorMachine,
  configuration: Configuration,
): Promise<DoctorFinding[]> {
  const wrong = await machine.wrongSettings(configuration);
  if (wrong.length === 0) return [fine('Settings of the kernel (sysctl) are as the mode needs them')];
  return wrong.map(({ text, fatal }) => (fatal ? problem(text) : warning(text)));
}

async function examineInterface(machine: DoctorMachine, { kernel }: Configuration): Promise<DoctorFinding[]> {
  const name = kernel?.interface;
  if (name === undefined) return [];
  const [link] = await ipRecords(machine, 'link', 'show', 'dev', name);
  if (link === undefined)
    return [problem(`Interface ${name} does not exist: no packet is balanced`, 'ip link')];
  const flags: unknown[] = Array.isArray(link['flags']) ? link['flags'] : [];
  if (!flags.includes('UP')) return [problem(`Interface ${name} is down`, `ip link set ${name} up`)];
  return [fine(`Interface ${name} is up, MTU ${String(link['mtu'])}`)];
}

/** Only modes with connection tracking have a table that can be full. */
async function examineTracking(
  machine: DoctorMachine,
  { kernel, limits }: Configuration,
): Promise<DoctorFinding[]> {
  if (kernel?.mode !== 'nat' && kernel?.mode !== 'next-hop') return [];
  if (kernel.flowState === 'stateless') return [];
  const folder = '/proc/sys/net/netfilter';
  const [used = Number.NaN, most = Number.NaN] = await Promise.all(
    ['nf_conntrack_count', 'nf_conntrack_max'].map(async (file) =>
      Number((await machine.readText(`${folder}/${file}`)) ?? Number.NaN),
    ),
  );
  if (Number.isNaN(used + most)) {
    return [note('Connection tracking is not loaded yet, so its size is unknown')];
  }
  const text = `Connection tracking has ${used} of ${most} entries`;
  const wanted = limits.tcpFlows + limits.udpFlows;
  const fix = `sysctl -w net.netfilter.nf_conntrack_max=${Math.max(wanted, most * 2)}`;
  if (used >= most * NEARLY_FULL) return [warning(`${text}: new flows are dropped when it is full`, fix)];
  if (most < wanted)
    return [note(`${text}, less than limits.tcpFlows and udpFlows together (${wanted})`, fix)];
  return [fine(text)];
}
