import assert from 'node:assert/strict';
import { once } from 'node:events';
import { fileURLToPath } from 'node:url';
import { floatingFlows, type FloatingFlow } from '../../src/planes/kernel/ebpf/floating-flows.js';
import { floatingSetup } from '../../src/planes/kernel/ebpf/floating.js';
import { compileProgram, type RemovedBackend } from '../../src/planes/kernel/program.js';
import type { ForwardingState } from '../../src/model/forwarding.js';
import { replaceTable } from '../../src/planes/netfilter/nft.js';
import {
  deltaText,
  replaceTableText,
  routingText,
  type KernelSetup,
} from '../../src/planes/netfilter/setup.js';
import { systemTools } from '../../src/planes/netfilter/tools.js';
import { within } from './deadline.js';
import { CLIENTS, FRONTEND, LabClient } from './nat-lab.js';
import { NamespaceLab } from './namespaces.js';

/*
 * As the nat lab, but backends have the frontends' addresses on their loopback and answer past the balancer:
 *
 *   client 10.1.0.2-5 -- router 10.2.0.254 == 10.2.0.1 lb
 *                                          == 10.2.0.11-13 b1 b2 b3, each with 10.9.0.10 on lo
 */

export const BACKENDS = ['b1', 'b2', 'b3'] as const;
export const PORT = 7000;
/** Of the balancer, towards the router: where flows arrive, and where backends are. */
export const DEVICE = 'router';
const BACKEND_MAIN = fileURLToPath(new URL('./floating-backend-main.js', import.meta.url));
const CLIENT_MAIN = fileURLToPath(new URL('./nat-client-main.js', import.meta.url));

/** Whoever creates it closes it. */
export class FloatingLab {
  readonly namespaces: NamespaceLab;
  #setup: KernelSetup | undefined;

  private constructor(namespaces: NamespaceLab) {
    this.namespaces = namespaces;
  }

  static async create(): Promise<FloatingLab> {
    const lab = await NamespaceLab.create('client', 'router', 'lb', ...BACKENDS);
    try {
      await wire(lab);
      await Promise.all(BACKENDS.map((name) => startBackend(lab, name)));
    } catch (error) {
      await lab.close();
      throw error;
    }
    return new FloatingLab(lab);
  }

  client(where = 'client'): LabClient {
    return new LabClient(
      this.namespaces.spawn(where, process.execPath, [CLIENT_MAIN], { stdio: ['pipe', 'pipe', 'inherit'] }),
    );
  }

  /** Puts what a state takes in place, by the difference to what was there where that is possible. */
  async load(state: ForwardingState, removed: readonly RemovedBackend[] = []): Promise<void> {
    const setup = floatingSetup(compileProgram(state, removed));
    const before = this.#setup;
    const delta = before === undefined ? undefined : deltaText(before, setup);
    for (const line of routingText(setup).split('\n')) {
      if (line !== '' && (before === undefined || !routingText(before).includes(line))) {
        await this.namespaces.must('lb', 'ip', line.split(' ').slice(1));
      }
    }
    await this.namespaces.nft('lb', delta ?? replaceTableText(setup));
    this.#setup = setup;
  }

  /** Puts a table in place of what was there as a whole, as a process does when more than elements differs. */
  async replace(state: ForwardingState): Promise<void> {
    const setup = floatingSetup(compileProgram(state));
    await replaceTable(systemTools({ namespace: this.namespaces.full('lb') }), setup);
    this.#setup = setup;
  }

  /** Takes everything away. */
  async clear(): Promise<void> {
    const setup = this.#setup;
    if (setup === undefined) return;
    await this.namespaces.nft('lb', 'flush ruleset');
    for (const line of routingText(setup).split('\n')) {
      if (line !== '')
        await this.namespaces.run('lb', 'ip', line.replace(' add ', ' del ').split(' ').slice(1));
    }
    this.#setup = undefined;
  }

  /** The flows in a set that packets have filled. */
  async listed(set: string): Promise<readonly FloatingFlow[]> {
    const { family = 'inet', table } = this.#setup ?? {};
    assert.ok(table);
    return floatingFlows(await this.namespaces.must('lb', 'nft', ['list', 'set', family, table, set]));
  }

  /** Forgets what packets have written down. */
  async flush(...names: readonly string[]): Promise<void> {
    const { family = 'inet', table } = this.#setup ?? {};
    const lines = names.map(
      (name) => `flush ${name === 'settling' ? 'set' : 'map'} ${family} ${table} ${name}`,
    );
    await this.namespaces.nft('lb', lines.join('\n'));
  }

  async close(): Promise<void> {
    await this.namespaces.close();
  }
}

async function wire(lab: NamespaceLab): Promise<void> {
  const client = [...CLIENTS[4].map((text) => `${text}/24`), ...CLIENTS[6].map((text) => `${text}/64`)];
  await lab.link(
    { in: 'client', addresses: client },
    { in: 'router', addresses: ['10.1.0.1/24', 'fd01::1/64'] },
  );
  await lab.ip('router', 'link add br0 type bridge');
  await lab.ip('router', 'link set br0 up');
  await lab.address('router', 'br0', '10.2.0.254/24', 'fd02::254/64');
  const hosts = { lb: '1', b1: '11', b2: '12', b3: '13' };
  for (const [name, host] of Object.entries(hosts)) {
    await lab.link(
      { in: name, addresses: [`10.2.0.${host}/24`, `fd02::${host}/64`] },
      { in: 'router', addresses: [] },
    );
    await lab.ip('router', `link set ${name} master br0`);
    await lab.ip(name, '-4 route add default via 10.2.0.254');
    await lab.ip(name, '-6 route add default via fd02::254');
    await lab.sysctl(name, 'net.ipv4.conf.all.rp_filter', 0);
    await lab.sysctl(name, 'net.ipv4.conf.default.rp_filter', 0);
    await lab.sysctl(name, 'net.ipv4.conf.all.arp_ignore', 1);
    await lab.sysctl(name, 'net.ipv4.conf.all.arp_announce', 2);
    if (name !== 'lb') await lab.address(name, 'lo', `${FRONTEND[4]}/32`, `${FRONTEND[6]}/128`);
  }
  await lab.ip('client', '-4 route add default via 10.1.0.1');
  await lab.ip('client', '-6 route add default via fd01::1');
  await lab.ip('router', `-4 route add ${FRONTEND[4]} via 10.2.0.1`);
  await lab.ip('router', `-6 route add ${FRONTEND[6]} via fd02::1`);
  // While no table is there, packets would run between the router and the balancer.
  await lab.ip('lb', `-4 route add blackhole ${FRONTEND[4]}`);
  await lab.ip('lb', `-6 route add blackhole ${FRONTEND[6]}`);
  for (const name of ['router', 'lb']) {
    await lab.sysctl(name, 'net.ipv4.ip_forward', 1);
    await lab.sysctl(name, 'net.ipv6.conf.all.forwarding', 1);
    await lab.sysctl(name, 'net.ipv4.conf.all.send_redirects', 0);
  }
  await lab.sysctl('lb', 'net.ipv4.conf.router.send_redirects', 0);
}

async function startBackend(lab: NamespaceLab, name: string): Promise<void> {
  // Its own too, which probes ask.
  const own = [`10.2.0.1${name.slice(1)}`, `fd02::1${name.slice(1)}`];
  const args = [BACKEND_MAIN, name, String(PORT), FRONTEND[4], FRONTEND[6], ...own];
  const child = lab.spawn(name, process.execPath, args, { stdio: ['ignore', 'pipe', 'inherit'] });
  assert.ok(child.stdout);
  await within(once(child.stdout, 'data'), 20_000, `backend ${name} to listen`);
}
