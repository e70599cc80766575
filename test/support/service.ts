import assert from 'node:assert/strict';
import { after, afterEach, before } from 'node:test';
import { eventually } from './deadline.js';
import { haportsHere } from './command-here.js';
import { HaportsProcess, type CommandResult, type RunOptions } from './haports-process.js';
import { labConfig, type LabOptions } from './lab-config.js';
import { loopbackBlock } from './loopback.js';
import { sumMetric } from './metrics-text.js';
import { NvaHere, NvaProcess, startNvas, type NvaKind, type RunningNva } from './nva-process.js';
import { TcpClient } from './tcp-client.js';
import { UdpClient } from './udp-client.js';

/** The probe of the sample NVAs; silence of a busy machine counts only after ten seconds, an answer at once. */
export const NVA_PROBE = { protocol: 'http', port: 9000, path: '/healthz', interval: '200ms', threshold: 50 };

export interface ServiceOptions extends Partial<LabOptions> {
  /** What the sample NVAs serve, first to last, and the frontend if `listenPorts` says nothing else. */
  readonly ports: readonly [first: number, last: number];
  /** Sample NVAs. @default 3 */
  readonly nvas?: number;
  /** @default 0: the flows are in the control process */
  readonly workers?: number;
}

/** A client, and which backend answered it first. */
export interface Opened<Client> {
  readonly client: Client;
  readonly backend: string;
}

export interface OpenFlows {
  readonly tcp: readonly Opened<TcpClient>[];
  readonly udp: readonly Opened<UdpClient>[];
}

/** The built process on loopback addresses of its own in front of sample NVAs: see {@link useService}. */
export class Service<Nva extends RunningNva = NvaHere> {
  readonly host = loopbackBlock();
  readonly nvas: Nva[] = [];
  readonly #options: ServiceOptions;
  readonly #nvaKind: NvaKind<Nva>;
  readonly #clients: (() => void)[] = [];
  #process: HaportsProcess | undefined;

  constructor(options: ServiceOptions, nvaKind: NvaKind<Nva>) {
    this.#options = options;
    this.#nvaKind = nvaKind;
  }

  get process(): HaportsProcess {
    assert.ok(this.#process !== undefined, 'haports has not been started');
    return this.#process;
  }

  configuration(change: Partial<LabOptions> = {}) {
    const { ports, nvas, workers = 0, top, ...options } = this.#options;
    return labConfig(this.host, {
      listenPorts: ports.join('-'),
      backends: nvas,
      ...options,
      ...change,
      top: { dataPlane: { workers }, ...top, ...change.top },
    });
  }

  async startNvas(): Promise<void> {
    const { ports, nvas } = this.#options;
    this.nvas.push(...(await startNvas(this.#nvaKind, this.host, ports.join('-'), nvas)));
  }

  /** Starts the process, whose NVAs are well; the one before is ended. */
  async start(change: Partial<LabOptions> = {}, options?: RunOptions): Promise<HaportsProcess> {
    await this.#process?.kill();
    const started = (this.#process = await HaportsProcess.start(this.configuration(change), options));
    // On a busy machine first verdicts may miss the second that a start waits for them.
    const isProbed = async (): Promise<boolean> =>
      (await started.metrics()).every(({ name, value }) => name !== 'haports_probe_up' || value === 1);
    await eventually(isProbed, 10_000, 'all probes to say up');
    return started;
  }

  async stop(): Promise<void> {
    this.closeClients();
    await Promise.all(this.nvas.map((nva) => nva.kill()));
    await this.#process?.kill();
  }

  /** The port and client address that client number `index` has, in turn. */
  target(index: number) {
    const [first, last] = this.#options.ports;
    return {
      host: this.host(1),
      port: first + (index % (last - first + 1)),
      localAddress: this.host(100 + (index % 150)),
    };
  }

  async tcp(index = 0): Promise<Opened<TcpClient>> {
    const client = await TcpClient.connect(this.target(index));
    this.#clients.push(() => client.destroy());
    return { client, backend: await client.backend() };
  }

  async udp(index = 0): Promise<Opened<UdpClient>> {
    const client = await UdpClient.open(this.target(index));
    this.#clients.push(() => client.close());
    const backend = await client.backend();
    assert.ok(backend !== undefined, 'a UDP flow got no answer');
    return { client, backend };
  }

  /** So many flows of each protocol, clients 0 and on. */
  async openFlows(count: number): Promise<OpenFlows> {
    const each = <T>(open: (index: number) => Promise<T>): Promise<T[]> =>
      Promise.all(Array.from({ length: count }, (_, index) => open(index)));
    return { tcp: await each((index) => this.tcp(index)), udp: await each((index) => this.udp(index)) };
  }

  closeClients(): void {
    for (const close of this.#clients.splice(0)) close();
  }

  /** How many new TCP and UDP flows, `count` of each, reach which backend: `tcp nva-1` 20 ... They are closed again. */
  async newFlows(count = 60): Promise<ReadonlyMap<string, number>> {
    const counts = new Map<string, number>();
    const note = (backend: string): void => void counts.set(backend, (counts.get(backend) ?? 0) + 1);
    await Promise.all(
      Array.from({ length: count }, async (_, index) => {
        const tcp = await TcpClient.connect(this.target(index));
        note(`tcp ${await tcp.backend()}`);
        tcp.destroy();
        const udp = await UdpClient.open(this.target(index));
        note(`udp ${(await udp.backend()) ?? 'none'}`);
        udp.close();
      }),
    );
    return counts;
  }

  /** Resolves once the probe of a backend says so. */
  async probeSays(backend: string, up: 0 | 1): Promise<void> {
    const says = async (): Promise<boolean> =>
      sumMetric(await this.process.metrics(), 'haports_probe_up', { backend }) === up;
    await eventually(says, 10_000, `the probe of ${backend} to say ${up}`);
  }

  /** A command that asks this process. */
  command(...args: readonly string[]): Promise<CommandResult> {
    return haportsHere([...args, '--socket', this.process.socket]);
  }

  /** What a command prints, which must succeed. */
  async ok(...args: readonly string[]): Promise<string> {
    const { code, stdout, stderr } = await this.command(...args);
    assert.equal(code, 0, `haports ${args.join(' ')}:\n${stdout}${stderr}`);
    return stdout;
  }

  async json<T>(...args: readonly string[]): Promise<T> {
    return JSON.parse(await this.ok(...args, '--json')) as T;
  }
}

/**
 * A service for the tests of this file or `describe`: its NVAs, and with `isStarted` its process, start before and end after
 * them. Clients are closed after each test where `keepsClients` does not say otherwise.
 */
export function useService(options: ServiceOptions, use: ServiceUse = {}): Service {
  return serviceOf(new Service(options, NvaHere), use);
}

/** As {@link useService}, with NVAs that a test can freeze, kill and restart. */
export function useServiceOfProcesses(options: ServiceOptions, use: ServiceUse = {}): Service<NvaProcess> {
  return serviceOf(new Service(options, NvaProcess), use);
}

interface ServiceUse {
  readonly isStarted?: boolean;
  readonly keepsClients?: boolean;
}

function serviceOf<Nva extends RunningNva>(
  service: Service<Nva>,
  { isStarted = true, keepsClients = false }: ServiceUse,
): Service<Nva> {
  before(async () => {
    await service.startNvas();
    if (isStarted) await service.start();
  });
  if (!keepsClients) afterEach(() => service.closeClients());
  after(() => service.stop());
  return service;
}
