import assert from 'node:assert/strict';
import { before } from 'node:test';
import { floatingFlows, type FloatingFlow } from '../../src/planes/kernel/ebpf/floating-flows.js';
import { compileProgram, type RemovedBackend } from '../../src/planes/kernel/program.js';
import { setupOf } from '../../src/planes/kernel/plane.js';
import { parseCidr } from '../../src/model/address.js';
import type { ForwardingState } from '../../src/model/forwarding.js';
import type { KernelMode, KernelOptions } from '../../src/model/configuration.js';
import { deltaText, replaceTableText, type KernelSetup } from '../../src/planes/netfilter/setup.js';
import { addRouting, deleteRouting, without } from '../../src/planes/netfilter/routing.js';
import { replaceTable } from '../../src/planes/netfilter/nft.js';
import type { Tools } from '../../src/planes/netfilter/tools.js';
import { KernelStates } from './kernel-states.js';
import { useLab, type Host, type Lab } from './lab.js';
import type { Conditions } from './state-factory.js';
import type { Flow } from './traffic.js';
import {
  ARM,
  BACKENDS,
  BEYOND,
  configurationFor,
  FRONTENDS,
  HUB,
  hub,
  NVAS,
  SPOKE_BLOCKS,
  SPOKE_NAMES,
  spokes,
  type ConfigurationPlan,
  type Site,
} from './topologies.js';

/** The modes that serve the frontends of the hub. */
export const HUB_MODES = ['nat', 'floating-l2', 'floating-routed'] as const satisfies readonly KernelMode[];
export const FLOATING_MODES = ['floating-l2', 'floating-routed'] as const satisfies readonly KernelMode[];
/** Where all backends of the hub, and the servers in the spokes, answer. */
export const SERVER_PORTS = [80, 443, 5060, 8080, 8081, 8443, 50000] as const;
/** NVAs let it pass, and no server is there. */
export const CLOSED_PORT = 9;
/** NVAs answer here, as to a probe. */
export const PROBE_PORT = 9000;

/** What the kernel has to take into account besides a configuration and its conditions. */
export interface Wishes {
  readonly options?: Partial<KernelOptions> & { readonly tableSize?: number };
  /** Names of backends that the state before had, and this one has not. */
  readonly removed?: readonly string[];
  /** Of the balancer's own links. */
  readonly networks?: readonly string[];
}

/**
 * A lab with what the kernel data plane puts in place in its host `lb`, without a process and whatever the mode: the only
 * place in these tests that knows how.
 */
export class KernelLab<Name extends string> {
  readonly lab: Lab<Name | 'lb'>;
  readonly #site: Site;
  readonly #options: Partial<KernelOptions>;
  #states: KernelStates | undefined;
  #setup: KernelSetup | undefined;
  #state: ForwardingState | undefined;

  constructor(lab: Lab<Name | 'lb'>, site: Site, options: Partial<KernelOptions>) {
    this.lab = lab;
    this.#site = site;
    this.#options = options;
    before(async () => {
      this.#states = await KernelStates.create();
    });
  }

  get states(): KernelStates {
    assert.ok(this.#states);
    return this.#states;
  }

  get tools(): Tools {
    return this.#balancer.tools;
  }

  get #balancer(): Host {
    return this.lab.host('lb');
  }

  state(plan: ConfigurationPlan, conditions: Conditions = {}, { options }: Wishes = {}): ForwardingState {
    const all = { ...this.#options, ...options };
    return this.states.state(configurationFor(this.#site, plan), all, conditions);
  }

  setupOf(state: ForwardingState, { removed = [], networks = [] }: Wishes = {}): KernelSetup {
    const gone = (this.#state?.views ?? []).flatMap(({ pool, backends }): RemovedBackend[] =>
      backends
        .filter(({ backend }) => removed.includes(backend.name))
        .map(({ backend }) => ({ ...backend, pool: pool.name })),
    );
    assert.ok(gone.length >= removed.length, `${removed.join()} must have been there before`);
    return setupOf(
      compileProgram(state, { removed: gone }),
      networks.flatMap((text) => parseCidr(text) ?? []),
    );
  }

  /** Puts a state in place, by the difference to the one before where that is possible. */
  async load(
    plan: ConfigurationPlan,
    conditions: Conditions = {},
    wishes: Wishes = {},
  ): Promise<ForwardingState> {
    const state = this.state(plan, conditions, wishes);
    await this.put(this.setupOf(state, wishes));
    this.#state = state;
    return state;
  }

  async put(setup: KernelSetup): Promise<void> {
    const before = this.#setup;
    await addRouting(this.tools, without(setup.routing, before?.routing ?? []));
    const delta = before === undefined ? undefined : deltaText(before, setup);
    await this.#balancer.nft(delta ?? replaceTableText(setup));
    const failure = await deleteRouting(this.tools, without(before?.routing ?? [], setup.routing));
    if (failure !== undefined) throw failure;
    this.#setup = setup;
  }

  /** Puts the table of a state in place of what was there as a whole, as a process does when its structure differs. */
  async replace(state: ForwardingState): Promise<void> {
    this.#setup = this.setupOf(state);
    await replaceTable(this.tools, this.#setup);
  }

  /** Takes everything away. */
  async clear(): Promise<void> {
    await this.#balancer.nft('flush ruleset');
    const failure = await deleteRouting(this.tools, this.#setup?.routing ?? []);
    if (failure !== undefined) throw failure;
    this.#setup = undefined;
  }

  /** Forgets the flows that conntrack has, those that these arguments of `conntrack -D` name. */
  async forget(which?: string): Promise<void> {
    await this.#balancer.run(which === undefined ? 'conntrack -F' : `conntrack -D ${which}`);
  }

  /** The flows of a frontend that the modes with floating IP have pinned. */
  async pinned(frontend = 'hub4'): Promise<readonly FloatingFlow[]> {
    return floatingFlows(await this.#balancer.must(`nft list set ${this.#table} flows-${frontend}`));
  }

  /** Forgets where the flows of a frontend are pinned to. */
  async forgetPins(frontend = 'hub4'): Promise<void> {
    await this.#balancer.nft(`flush map ${this.#table} pins-${frontend}`);
  }

  /** Ends the time in which packets without a flow are taken for those of flows that are older than the table. */
  async settle(): Promise<void> {
    await this.#balancer.nft(`flush set ${this.#table} settling`);
  }

  /** Leaves room for fewer flows. */
  async shrink(state: ForwardingState, flows: number): Promise<void> {
    await this.#balancer.nft(
      replaceTableText(this.setupOf(state)).replaceAll('size 262144', `size ${flows}`),
    );
  }

  get #table(): string {
    assert.ok(this.#setup);
    return `${this.#setup.family ?? 'inet'} ${this.#setup.table}`;
  }
}

/** The hub in this mode, its backends serving, for the tests of this `describe`. */
export function useHub(mode: (typeof HUB_MODES)[number]) {
  const lab = useLab(hub(mode === 'nat' ? 'through' : 'direct'));
  before(() => Promise.all(BACKENDS.map((name) => serveFrontends(lab.host(name)))));
  return new KernelLab(lab, HUB, { mode, ...(mode === 'floating-l2' ? { interface: ARM } : {}) });
}

/** Serves on each address that a backend of the hub may be asked at: over UDP, answers come from the same. */
export async function serveFrontends(backend: Host, ports: readonly number[] = SERVER_PORTS): Promise<void> {
  const listing = await backend.ip('-o address show');
  const addresses = [...listing.matchAll(/inet6? (\S+)\//g)].map(([, address = '']) => address);
  const own = addresses.filter((address) => !/^(127\.|::1$|fe80:)/.test(address));
  assert.ok(own.length === 2 || own.length === 2 + FRONTENDS[4].length + FRONTENDS[6].length);
  await backend.serve({ name: backend.name, addresses: own, ports });
}

const FIREWALL = `table inet firewall
delete table inet firewall
table inet firewall {
  chain forward {
    type filter hook forward priority 0; policy drop;
    ct state established,related accept
    ct state invalid drop
    tcp flags & (fin | syn | rst | ack) == syn accept
    udp dport { ${SERVER_PORTS.join(', ')}, ${CLOSED_PORT} } accept
    icmp type echo-request accept
    icmpv6 type echo-request accept
    ip saddr 10.10.0.0/16 meta l4proto { 47, 50 } accept
  }
}
`;

/**
 * The spokes with mode next-hop, for the tests of this `describe`. NVAs are firewalls with state: they pass only what belongs
 * to a flow whose first packet they have seen.
 */
export function useSpokes(onward: 'past' | 'through' = 'past') {
  const lab = useLab(spokes(onward));
  before(async () => {
    await Promise.all([
      ...SPOKE_NAMES.map((name) => lab.host(name).serve({ name, ports: SERVER_PORTS })),
      ...NVAS.map((name) => lab.host(name).serve({ name, ports: [PROBE_PORT] })),
    ]);
    await setFirewalls(lab, 'stateful');
  });
  const blocks = SPOKE_BLOCKS.flatMap((text) => parseCidr(text) ?? []);
  return new KernelLab(lab, BEYOND, { mode: 'next-hop', spokes: blocks });
}

export async function setFirewalls(
  lab: Lab<(typeof NVAS)[number]>,
  kind: 'stateful' | 'stateless',
): Promise<void> {
  const script = kind === 'stateful' ? FIREWALL : 'flush ruleset';
  await Promise.all(NVAS.map((name) => lab.host(name).nft(script)));
}

/** By crossing, the NVAs that have seen both directions. */
export async function crossedNvas(
  lab: Lab<(typeof NVAS)[number]>,
): Promise<ReadonlyMap<string, readonly string[]>> {
  const seen = new Map<string, string[]>();
  for (const name of NVAS) {
    for (const family of ['ipv4', 'ipv6']) {
      const { stdout } = await lab.host(name).run(`conntrack -L -f ${family}`);
      for (const line of stdout.split('\n')) {
        const found = /^(tcp|udp) .*?src=(\S+) dst=(\S+) sport=(\d+) dport=(\d+)/.exec(line);
        if (found === null || line.includes('[UNREPLIED]')) continue;
        const key = found.slice(1).join(' ');
        seen.set(key, [...(seen.get(key) ?? []), name]);
      }
    }
  }
  return seen;
}

/** `protocol source destination sourcePort port`, as the client has them. */
export function crossingOf({ protocol, source, host, sourcePort, port }: Flow): string {
  return [protocol, source, host, sourcePort, port].join(' ');
}
