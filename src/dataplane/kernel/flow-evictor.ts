import type { Protocol } from '../../model/five-tuple.js';
import { parseIpAddress } from '../../model/address.js';
import type { Configuration } from '../../model/configuration.js';
import { parseConntrackEntry, type ConntrackEntry } from '../../nft/conntrack-entry.js';
import { forgetFlows } from '../../nft/own-table.js';
import type { Tools } from '../../nft/tools.js';
import { createRuleMatcher, NO_RULE } from '../../selection/rule-matcher.js';
import { INSTANCE_MASK, markTag } from './backend-marks.js';
import { isShared, matchOf, onlyPort, type Eviction, type Evictions } from './evictions.js';
import type { KernelInput } from './kernel-input.js';

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
    const matcher = createRuleMatcher(configuration);
    const commands = new Map<string, readonly string[]>();
    for (const family of ['ipv4', 'ipv6']) {
      const match = ['-f', family, '--mark', `0x${tag.toString(16)}/0x${INSTANCE_MASK.toString(16)}`];
      for (const { protocol, original } of await this.#list(match)) {
        const name = nameOf(protocol);
        const destination = parseIpAddress(original.destination);
        if (name === undefined || destination === undefined) continue;
        if (matcher.match(name, destination, original.destinationPort) !== NO_RULE) continue;
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
    const matcher = createRuleMatcher({
      frontends: [...new Set(rules.map(({ frontend }) => frontend))],
      rules: rules.map((one) => one.rule),
    });
    const ports = new Set<number>();
    for (const { original } of await this.#list(match)) {
      const destination = parseIpAddress(original.destination);
      if (destination === undefined) continue;
      const index = matcher.match(protocol, destination, original.destinationPort);
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
