import assert from 'node:assert/strict';
import type { ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { fileURLToPath } from 'node:url';
import { createInterface } from 'node:readline';
import { deltaText, replaceTableText, type KernelSetup } from '../../src/planes/netfilter/setup.js';
import { within } from './deadline.js';
import { NamespaceLab } from './namespaces.js';

/*
 * Client - router - one-armed balancer and three backends on the router's bridge. The frontends are routed to the
 * balancer, which does not have them itself; backends answer through the balancer.
 *
 *   client 10.1.0.2-5 -- router 10.2.0.254 == 10.2.0.1 balancer
 *                                          == 10.2.0.11-13 b1 b2 b3
 */

export const FRONTEND = { 4: '10.9.0.10', 6: 'fd09::10' } as const;
export const CLIENTS = {
  4: ['10.1.0.2', '10.1.0.3', '10.1.0.4', '10.1.0.5'],
  6: ['fd01::2', 'fd01::3', 'fd01::4', 'fd01::5'],
} as const;
export const BACKENDS = ['b1', 'b2', 'b3'] as const;
export const BACKEND_PORTS = [80, 443, 5060, 8080, 8081, 8443, 50000] as const;
const BACKEND_MAIN = fileURLToPath(new URL('./nat-backend-main.js', import.meta.url));
const CLIENT_MAIN = fileURLToPath(new URL('./nat-client-main.js', import.meta.url));

export interface ClientFlow {
  readonly protocol: 'tcp' | 'udp';
  readonly host: string;
  readonly port: number;
  readonly source?: string;
  readonly sourcePort?: number;
  /** Who ends a TCP flow of `once`: the client by a reset, or the backend by closing it. @default the client */
  readonly endedBy?: 'client' | 'backend';
  /** Of a datagram. @default 1 */
  readonly bytes?: number;
}

/**
 * `once`: one question a flow. `open`: TCP flows that stay. `ask`: another question on each that stays. `tick`: as that, and
 * backends go on answering by themselves, every 100 ms.
 */
export interface ClientWork {
  readonly kind: 'once' | 'open' | 'ask' | 'tick';
  readonly flows?: readonly ClientFlow[];
  /** For each answer. @default 3000 */
  readonly timeoutMs?: number;
}

/** Answers of one client process, in order. */
export class LabClient {
  readonly #child: ChildProcess;
  readonly #lines: AsyncIterator<string>;

  constructor(child: ChildProcess) {
    assert.ok(child.stdout);
    this.#child = child;
    this.#lines = createInterface({ input: child.stdout })[Symbol.asyncIterator]();
  }

  async do(work: ClientWork): Promise<readonly string[]> {
    this.#child.stdin?.write(`${JSON.stringify(work)}\n`);
    const line = await within(this.#lines.next(), 60_000, `answers to ${work.kind}`);
    assert.notEqual(line.done, true, 'The client has ended');
    return JSON.parse(String(line.value)) as string[];
  }

  /** Closes all that is open. */
  end(): void {
    this.#child.stdin?.end();
  }

  async once(...flows: readonly ClientFlow[]): Promise<readonly string[]> {
    return this.do({ kind: 'once', flows });
  }
}

/** Whoever creates it closes it. */
export class NatLab {
  readonly namespaces: NamespaceLab;
  #setup: KernelSetup | undefined;

  private constructor(namespaces: NamespaceLab) {
    this.namespaces = namespaces;
  }

  static async create(): Promise<NatLab> {
    const lab = await NamespaceLab.create('client', 'router', 'lb', ...BACKENDS);
    try {
      await wire(lab);
      await Promise.all(BACKENDS.map((name) => startBackend(lab, name)));
    } catch (error) {
      await lab.close();
      throw error;
    }
    return new NatLab(lab);
  }

  client(where = 'client'): LabClient {
    return new LabClient(
      this.namespaces.spawn(where, process.execPath, [CLIENT_MAIN], { stdio: ['pipe', 'pipe', 'inherit'] }),
    );
  }

  /** Puts a setup in place, by the difference to the one before where that is possible. */
  async load(setup: KernelSetup): Promise<void> {
    const delta = this.#setup === undefined ? undefined : deltaText(this.#setup, setup);
    await this.namespaces.nft('lb', delta ?? replaceTableText(setup));
    this.#setup = setup;
  }

  /** Forgets the flows that conntrack has. */
  async forget(...args: readonly string[]): Promise<void> {
    await this.namespaces.run('lb', 'conntrack', args.length === 0 ? ['-F'] : ['-D', ...args]);
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
    const gateway = name === 'lb' ? '254' : '1';
    await lab.ip(name, `-4 route add default via 10.2.0.${gateway}`);
    await lab.ip(name, `-6 route add default via fd02::${gateway}`);
    await lab.sysctl(name, 'net.ipv4.conf.all.rp_filter', 0);
    await lab.sysctl(name, 'net.ipv4.conf.default.rp_filter', 0);
  }
  await lab.ip('client', '-4 route add default via 10.1.0.1');
  await lab.ip('client', '-6 route add default via fd01::1');
  await lab.ip('router', `-4 route add ${FRONTEND[4]} via 10.2.0.1`);
  await lab.ip('router', `-6 route add ${FRONTEND[6]} via fd02::1`);
  for (const name of ['router', 'lb']) {
    await lab.sysctl(name, 'net.ipv4.ip_forward', 1);
    await lab.sysctl(name, 'net.ipv6.conf.all.forwarding', 1);
    await lab.sysctl(name, 'net.ipv4.conf.all.send_redirects', 0);
  }
  await lab.sysctl('lb', 'net.ipv4.conf.router.send_redirects', 0);
}

async function startBackend(lab: NamespaceLab, name: string): Promise<void> {
  const args = [BACKEND_MAIN, name, ...BACKEND_PORTS.map(String)];
  const child = lab.spawn(name, process.execPath, args, { stdio: ['ignore', 'pipe', 'inherit'] });
  assert.ok(child.stdout);
  await within(once(child.stdout, 'data'), 20_000, `backend ${name} to listen`);
}

/** The first word of an answer: the backend. */
export function whoAnswered(answer: string | undefined): string {
  return answer?.split(' ')[0] ?? '';
}
