import { mix32 } from '../../flows/flow.js';
import { isWildcard, parseIpAddress, type Protocol } from '../../model/address.js';
import type { Configuration } from '../../model/configuration.js';
import type { ForwardingState } from '../../model/forwarding.js';
import { portSetSize } from '../../model/ports.js';
import type { Clock } from '../../runtime/clock.js';
import { NO_RULE, RulePorts } from '../../selection/rule-ports.js';
import { forgetFlows, parseConntrackEntry, type ConntrackEntry } from '../netfilter/conntrack.js';
import type { Tools } from '../netfilter/tools.js';
import { INSTANCE_MASK, markTag, type KernelInput, type KernelRule } from './program.js';

/** Flows of a rule on a backend that conntrack is to forget. `udp` stands for all protocols but TCP. */
export interface Eviction {
  readonly rule: KernelRule;
  readonly protocol: Protocol;
  readonly mark: number;
}

/** Evictions by what they are about. */
export type Evictions = ReadonlyMap<string, Eviction>;

/**
 * Flows that are placed anew by being forgotten: their next packet is the first of a flow. UDP that is reset is that too,
 * as its flow ends and its next datagram starts another.
 */
export function movedFlows(input: KernelInput): Evictions {
  return evictions(input, ({ actions: { udp } }) => [['udp', [...udp.rebalance, ...udp.reset]]]);
}

/** TCP flows that are reset when they next send: after that they are forgotten. Those that can move are not among them. */
export function resetFlows(input: KernelInput): Evictions {
  return evictions(input, ({ actions: { tcp } }) => [['tcp', tcp.reset]]);
}

/** Those that are not in the others. */
export function evictionsWithout(some: Evictions, others: Evictions): readonly Eviction[] {
  return [...some].flatMap(([key, eviction]) => (others.has(key) ? [] : [eviction]));
}

/** What `conntrack -D` and `-L` are told to match flows of an eviction, and maybe some of the same frontend's other rules. */
export function matchOf({ rule, mark }: Eviction): readonly string[] {
  const { address } = rule.frontend;
  return [
    ...['-f', `ipv${address.family}`, '--mark', `0x${mark.toString(16)}/0xffffffff`],
    ...(isWildcard(address) ? [] : ['--orig-dst', address.text.split('%', 1)[0] ?? '']),
  ];
}

/** The only port of the rule; undefined: it has several. */
export function onlyPort({ rule: { rule } }: Eviction): number | undefined {
  return portSetSize(rule.ports) === 1 ? rule.ports[0]?.first : undefined;
}

/** Whether a match may hit flows of other rules: some have the frontend's address, the pool and the protocol, but no such eviction. */
export function isShared({ rule, protocol, mark }: Eviction, all: Evictions, input: KernelInput): boolean {
  return input.rules.some(
    (other) =>
      other !== rule &&
      other.frontend.address.family === rule.frontend.address.family &&
      (isWildcard(rule.frontend.address) || other.frontend.address.text === rule.frontend.address.text) &&
      other.rule.pool === rule.rule.pool &&
      other.rule.protocols.includes(protocol) &&
      !all.has(keyOf(other, protocol, mark)),
  );
}

/**
 * Flows of UDP to the frontends that began without the table, as `conntrack -D` matches them: the kernel decides about a
 * flow once, and a client that keeps sending would never be balanced.
 */
export function staleFlows({ frontends }: KernelInput): string[][] {
  return frontends
    .filter(({ address }) => !isWildcard(address))
    .map(({ address: { family, text } }) => [
      ...['-f', `ipv${family}`, '-p', 'udp', '--orig-dst', text.split('%', 1)[0] ?? ''],
      ...['--mark', `0x0/0x${INSTANCE_MASK.toString(16)}`],
    ]);
}

function evictions(
  { rules }: KernelInput,
  marksOf: (rule: KernelRule) => readonly (readonly [Protocol, readonly number[]])[],
): Evictions {
  const found = new Map<string, Eviction>();
  for (const rule of rules) {
    for (const [protocol, marks] of marksOf(rule)) {
      if (!rule.rule.protocols.includes(protocol)) continue;
      for (const mark of marks) found.set(keyOf(rule, protocol, mark), { rule, protocol, mark });
    }
  }
  return found;
}

function keyOf({ rule }: KernelRule, protocol: Protocol, mark: number): string {
  return `${rule.name} ${protocol} ${mark}`;
}

const [TCP, UDP] = [6, 17];

/** A full table of a million entries takes about that long. */
const LIST_TIMEOUT_MS = 10_000;

export interface FlowEvictorDeps {
  readonly tools: Tools;
  /** What could not be forgotten ends by itself. */
  onFailure(text: string): void;
}

/** Has conntrack forget flows. Never rejects. */
export class FlowEvictor {
  readonly #deps: FlowEvictorDeps;

  constructor(deps: FlowEvictorDeps) {
    this.#deps = deps;
  }

  /** TCP or UDP of these; `all` are those that stay in force, of the same kind. */
  async evict(some: readonly Eviction[], all: Evictions, input: KernelInput): Promise<void> {
    const commands: (readonly string[])[] = [];
    for (const eviction of some) {
      const match = ['-p', eviction.protocol, ...matchOf(eviction)];
      const port = onlyPort(eviction);
      if (port !== undefined) commands.push([...match, '--orig-port-dst', String(port)]);
      else if (!isShared(eviction, all, input)) commands.push(match);
      else commands.push(...(await this.#byPort(eviction, match, input)));
    }
    await this.#forget(commands);
  }

  /** Flows of protocols without ports, whichever there are. */
  async evictOthers(some: readonly Eviction[]): Promise<void> {
    const commands: (readonly string[])[] = [];
    for (const eviction of some) {
      if (eviction.protocol === 'tcp' || !eviction.rule.rule.haPorts) continue;
      const match = matchOf(eviction);
      const entries = await this.#list(match);
      const protocols = new Set(entries.map(({ protocol }) => protocol));
      for (const protocol of protocols) {
        if (protocol !== TCP && protocol !== UDP) commands.push(['-p', String(protocol), ...match]);
      }
    }
    await this.#forget(commands);
  }

  /** Flows to which no rule belongs any more. Their next packet meets what there is for packets of no flow. */
  async evictRuleless({ instance }: KernelInput, configuration: Configuration): Promise<void> {
    const tag = markTag(instance);
    const rulePorts = new RulePorts(configuration.rules);
    const commands = new Map<string, readonly string[]>();
    for (const family of ['ipv4', 'ipv6']) {
      const match = ['-f', family, '--mark', `0x${tag.toString(16)}/0x${INSTANCE_MASK.toString(16)}`];
      for (const { protocol, original } of await this.#list(match)) {
        const name = nameOf(protocol);
        const destination = parseIpAddress(original.destination);
        if (name === undefined || destination === undefined) continue;
        if (rulePorts.ownerOf(name, destination, original.destinationPort) !== NO_RULE) continue;
        const port = String(original.destinationPort);
        commands.set(`${name} ${destination.text} ${port}`, [
          ...['-p', name, ...match],
          ...['--orig-dst', destination.text, '--orig-port-dst', port],
        ]);
      }
    }
    await this.#forget([...commands.values()]);
  }

  /** All of the instance. */
  async evictAll(instance: string): Promise<void> {
    const filter = `0x${markTag(instance).toString(16)}/0x${INSTANCE_MASK.toString(16)}`;
    await this.#forget(['ipv4', 'ipv6'].map((family) => ['-f', family, '--mark', filter]));
  }

  /** Flows of one client on a backend. */
  async evictClient(eviction: Eviction, source: string): Promise<void> {
    await this.#forget([['-p', eviction.protocol, ...matchOf(eviction), '--orig-src', source]]);
  }

  /** Clients that have flows of that kind. */
  async clientsOf(eviction: Eviction): Promise<ReadonlySet<string>> {
    const entries = await this.#list(['-p', eviction.protocol, ...matchOf(eviction)]);
    return new Set(entries.map(({ original }) => original.source));
  }

  /** Entries with the instance's marks; undefined: that could not be found out. */
  async marksInUse(instance: string): Promise<ReadonlyMap<number, string> | undefined> {
    const tag = markTag(instance);
    const found = new Map<number, string>();
    for (const family of ['ipv4', 'ipv6']) {
      const filter = `0x${tag.toString(16)}/0x${INSTANCE_MASK.toString(16)}`;
      const entries = await this.#listOrFail(['-f', family, '--mark', filter]);
      if (entries === undefined) return undefined;
      for (const { mark, reply } of entries) found.set(mark, reply.source);
    }
    return found;
  }

  /** Rules on the same address have other wishes: by the ports of those flows that are the rule's. */
  async #byPort(
    { rule, protocol }: Eviction,
    match: readonly string[],
    { rules }: KernelInput,
  ): Promise<(readonly string[])[]> {
    const rulePorts = new RulePorts(rules.map((one) => one.rule));
    const ports = new Set<number>();
    for (const { original } of await this.#list(match)) {
      const destination = parseIpAddress(original.destination);
      if (destination === undefined) continue;
      const index = rulePorts.ownerOf(protocol, destination, original.destinationPort);
      if (rules[index] === rule) ports.add(original.destinationPort);
    }
    return Array.from(ports, (port) => [...match, '--orig-port-dst', String(port)]);
  }

  async #list(match: readonly string[]): Promise<readonly ConntrackEntry[]> {
    return (await this.#listOrFail(match)) ?? [];
  }

  async #listOrFail(match: readonly string[]): Promise<readonly ConntrackEntry[] | undefined> {
    const args = ['-L', ...match, '-o', 'id'];
    const outcome = await this.#deps.tools.run('conntrack', args, { timeoutMs: LIST_TIMEOUT_MS });
    if (outcome.exitCode !== 0) {
      this.#deps.onFailure(`conntrack ${args.join(' ')} failed: ${outcome.stderr.trim()}`);
      return undefined;
    }
    return outcome.stdout.split('\n').flatMap((line) => parseConntrackEntry(line) ?? []);
  }

  async #forget(commands: readonly (readonly string[])[]): Promise<void> {
    let left = commands;
    for (let attempt = 0; attempt < ATTEMPTS && left.length > 0; attempt++) {
      const failed: (readonly string[])[] = [];
      for (const command of left) {
        const failure = await forgetFlows(this.#deps.tools, [command]);
        if (failure === undefined) continue;
        this.#deps.onFailure(failure.message);
        failed.push(command);
      }
      left = failed;
    }
  }
}

const ATTEMPTS = 3;

function nameOf(protocol: number): Protocol | undefined {
  if (protocol === TCP) return 'tcp';
  return protocol === UDP ? 'udp' : undefined;
}

/** Flows end in batches this far apart. */
const STEP_MS = 250;
/** conntrack is asked so often in one step, each of which takes it some milliseconds; what is left waits for the next. */
const MOST_PER_STEP = 10;

/** Ends flows of drained backends: flow-evictor.ts, or a test's. */
export interface ClientEvictor {
  clientsOf(eviction: Eviction): Promise<ReadonlySet<string>>;
  evictClient(eviction: Eviction, source: string): Promise<void>;
}

export interface DrainSpreadDeps {
  readonly clock: Clock;
  readonly evictor: ClientEvictor;
  /** The time is over: what is left is to end now. */
  readonly onOver: (backendId: string) => void;
}

/** A drained backend, and the flows of it that are to end over a time. */
export interface Spreading {
  readonly spreadMs: number;
  readonly evictions: readonly Eviction[];
}

interface Due {
  readonly eviction: Eviction;
  readonly source: string;
  readonly dueMs: number;
}

interface Schedule {
  readonly untilMs: number;
  /** The next is the last. */
  queue: Due[];
  cancel: () => void;
}

/**
 * Ends the flows of drained backends one client after another, evenly over the time asked for, so that they do not all
 * come back at once. A client's flows on one backend end together: conntrack forgets them by one command.
 */
export class DrainSpread {
  readonly #deps: DrainSpreadDeps;
  readonly #schedules = new Map<string, Schedule>();

  constructor(deps: DrainSpreadDeps) {
    this.#deps = deps;
  }

  /** By backend id. One that was there before goes on as it began; one that is missing is called off. */
  replace(spreading: ReadonlyMap<string, Spreading>): void {
    for (const [id, { cancel }] of this.#schedules) {
      if (spreading.has(id)) continue;
      cancel();
      this.#schedules.delete(id);
    }
    for (const [id, one] of spreading) if (!this.#schedules.has(id)) this.#begin(id, one);
  }

  stop(): void {
    this.replace(new Map());
  }

  #begin(id: string, { spreadMs, evictions }: Spreading): void {
    const { clock, evictor } = this.#deps;
    const schedule: Schedule = { untilMs: clock.monotonicMs() + spreadMs, queue: [], cancel: nothing };
    this.#schedules.set(id, schedule);
    this.#later(id, schedule);
    void Promise.all(
      evictions.map(async (eviction) =>
        Array.from(await evictor.clientsOf(eviction), (source) => ({ eviction, source })),
      ),
    ).then((found) => {
      const all = found.flat().sort((a, b) => orderOf(a.source) - orderOf(b.source));
      const nowMs = clock.monotonicMs();
      const leftMs = Math.max(0, schedule.untilMs - nowMs);
      const dues = all.map((one, index) => ({
        ...one,
        dueMs: nowMs + (leftMs * (index + 0.5)) / all.length,
      }));
      schedule.queue = dues.reverse();
    });
  }

  #later(id: string, schedule: Schedule): void {
    const leftMs = schedule.untilMs - this.#deps.clock.monotonicMs();
    const delayMs = Math.max(1, Math.min(STEP_MS, leftMs));
    schedule.cancel = this.#deps.clock.setTimer(delayMs, () => void this.#step(id, schedule), {
      unref: true,
    });
  }

  async #step(id: string, schedule: Schedule): Promise<void> {
    const { clock, evictor, onOver } = this.#deps;
    for (let done = 0; done < MOST_PER_STEP; done++) {
      const next = schedule.queue.at(-1);
      if (next === undefined || next.dueMs > clock.monotonicMs()) break;
      schedule.queue.pop();
      await evictor.evictClient(next.eviction, next.source);
    }
    if (this.#schedules.get(id) !== schedule) return;
    if (clock.monotonicMs() < schedule.untilMs) this.#later(id, schedule);
    else onOver(id);
  }
}

/** As good as random, and the same for the same client. */
function orderOf(source: string): number {
  let hash = 0;
  for (let index = 0; index < source.length; index++) hash = mix32(hash ^ source.charCodeAt(index));
  return hash;
}

function nothing(): void {
  // Nothing is scheduled.
}

/**
 * Drained backends whose flows are to end over a time, which it is, by id. `over`: those whose time has passed; ids that
 * are drained no more are taken out of it.
 */
export function spreadingOf({ views }: ForwardingState, over: Set<string>): ReadonlyMap<string, number> {
  const drained = new Map<string, number>();
  for (const { backends } of views) {
    for (const { backend, invalidBecause, endSpreadMs } of backends) {
      if (invalidBecause === 'drain-deadline') drained.set(backend.id, endSpreadMs ?? 0);
    }
  }
  for (const id of over) if (!drained.has(id)) over.delete(id);
  return new Map([...drained].filter(([id, spreadMs]) => spreadMs > 0 && !over.has(id)));
}
