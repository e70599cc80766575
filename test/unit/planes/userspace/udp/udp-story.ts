import assert from 'node:assert/strict';
import type { TestContext } from 'node:test';
import type { FlowAction, FlowTrigger, Rule } from '../../../../../src/model/configuration.js';
import { ipAddress } from '../../../../../src/model/address.js';
import type { PlaneEvent } from '../../../../../src/model/events.js';
import type { FlowOrigin } from '../../../../../src/model/flow.js';
import type { ForwardingState } from '../../../../../src/model/forwarding.js';
import { Picker } from '../../../../../src/selection/picker.js';
import { eventually, patience } from '../../../../support/deadline.js';
import {
  AZURE_POLICY,
  testState,
  type TestBackend,
  type TestStateParts,
} from '../../../../support/forwarding-state.js';
import { loopbackBlock } from '../../../../support/loopback.js';
import { FakeOrigins, MADE_UP, openDescriptors, Peer, Rig } from './rig.js';

const at = loopbackBlock(8);
/** The listener's, of the frontend or of a captured socket. */
const SOCKET = at(1);
/** The frontend's whose ports are captured. */
const CAPTURED = at(2);
const DEADLINE_MS = 5000;

type OpenListener = Awaited<ReturnType<Rig['open']>>;

/** What a story starts with, as its heading says. */
export interface Setting extends Pick<TestStateParts, 'rule' | 'limits' | 'pool'> {
  /** By the last number of their addresses. @default 11, 12 and 13 */
  readonly backends?: readonly string[];
  /** Backends that run. @default all */
  readonly running?: readonly string[];
  /** Whether backends answer nothing. @default they answer with their number and what they got */
  readonly silent?: boolean;
  /** Ports of the frontend that backends are on. @default one of the system's choice */
  readonly ports?: readonly number[];
  /** Of them, those with a listener. @default all */
  readonly listening?: readonly number[];
  /** Whether the socket is a captured one. */
  readonly captured?: boolean;
  /** What becomes of UDP flows at these triggers. @default as AZURE_POLICY says */
  readonly policy?: Partial<Record<FlowTrigger, FlowAction>>;
}

/**
 * Tells how UDP flows fare, on real sockets and a clock that stands still. Every hash is 0: new flows go to the first
 * eligible backend, or to the one after it where that has failed them. Each line is a step, or several at a time
 * (`a & b`), and what comes of it before the next:
 *
 *     a hello -> started 11 hash; a gets 11:hello
 *
 * Steps: a client, by letter (`a.2`: another port of it), sends a text, `to` a port where there are several; a backend, by
 * number and perhaps port, sends one `to #n`, an end that it has got something from; `wait` milliseconds, perhaps `by` some
 * at a time; `apply` a state with these backends, or `reload` it as another configuration (`11-`: down, `11~`: not
 * eligible); `open` a backend, `mute` one that answers nothing, `close` it. To be true: `sockets`: so many there are
 * besides listeners; `arrivals`, `listings`; `retries` after a backend; `idle`: no source port is in use.
 * Of captured ports: the kernel has a `new` entry for a client, a port and the source port that it stands for (`itself`:
 * the client's own), perhaps a destination, and it is `gone`, or one of an`other` id; a listing has these `entries`, and waits from `hold` to
 * `release`; there is a `gap`; another process takes a port (`occupy`).
 * Outcomes: what clients and silent backends get; events; `dropped` with the reason. `x3`: three times.
 */
export class UdpStory {
  readonly #test: TestContext;
  readonly #rig: Rig;
  readonly #setting: Setting;
  readonly #listeners: OpenListener[] = [];
  readonly #feed: FakeOrigins;
  readonly #origins = new Map<string, FlowOrigin>();
  readonly #clients = new Map<string, Peer>();
  readonly #backends: { readonly name: string; readonly isSilent: boolean; readonly peer: Peer }[] = [];
  /** Where backends see flows come from, in the order in which that is told. */
  readonly #ends: string[] = [];
  #release = (): void => undefined;
  #descriptors = 0;
  /** Told by earlier steps. */
  #told: readonly string[] = [];
  #revision = 1;
  #digest = 'a';

  private constructor(t: TestContext, setting: Setting, rig: Rig, feed: FakeOrigins) {
    this.#test = t;
    this.#setting = setting;
    this.#rig = rig;
    this.#feed = feed;
  }

  static async begin(t: TestContext, setting: Setting): Promise<UdpStory> {
    const { backends = ['11', '12', '13'], ports = [0], listening, captured, silent = false } = setting;
    const feed = new FakeOrigins({ receiver: SOCKET, destination: CAPTURED });
    const rig = await Rig.create(t, stateOf(setting, backends), {
      picker: new Picker(() => 0),
      origins: feed,
    });
    const story = new UdpStory(t, setting, rig, feed);
    const open =
      captured === true
        ? [rig.openCaptured(SOCKET)]
        : (listening ?? ports).map((port) => rig.open(SOCKET, port));
    story.#listeners.push(...(await Promise.all(open)));
    story.#descriptors = openDescriptors();
    for (const name of setting.running ?? backends) await story.#open(name, silent);
    return story;
  }

  async tell(line: string): Promise<void> {
    const [steps = '', outcomes = ''] = line.split('->').map((part) => part.trim());
    for (const step of steps.split(' & ')) await this.#take(step);
    const expected = byTeller([...this.#told, ...outcomes.split('; ').flatMap(repeated)]);
    const untilMs = performance.now() + patience(DEADLINE_MS);
    while (byTeller(this.#outcomes()).join() !== expected.join() && performance.now() < untilMs)
      await turns(1);
    // What should not come has time to.
    await new Promise((resolve) => setTimeout(resolve, 5));
    await turns(4);
    const told = this.#outcomes();
    assert.deepEqual(byTeller(told), expected, line.trim());
    this.#told = told;
  }

  async #take(step: string): Promise<void> {
    const [word = '', ...rest] = step.split(' ');
    const [name = ''] = rest;
    const steps: Record<string, (() => void | Promise<void>) | undefined> = {
      wait: () => this.#pass(Number(name), Number(rest[2] ?? name)),
      apply: () => this.#apply(rest),
      reload: () => this.#apply(rest, (this.#digest += 'a')),
      open: () => this.#open(name, false),
      mute: () => this.#open(name, true),
      close: () => this.#backend(name).close(),
      sockets: () =>
        eventually(() => this.#sockets === Number(name), DEADLINE_MS, step).then(() => undefined),
      retries: () => assert.equal(this.#retries(name), Number(rest[1])),
      arrivals: () => assert.equal(this.#rig.arrivals(), Number(name)),
      listings: () => assert.equal(this.#feed.lists, Number(name)),
      idle: () => assert.deepEqual(this.#rig.sourcePorts.uses(), []),
      new: async () => this.#feed.follower?.onNew(await this.#origin(rest)),
      gone: () =>
        this.#feed.follower?.onGone({ ...this.#originOf(name), ...(rest[1] === 'other' && { id: 77 }) }),
      entries: async () => {
        this.#feed.entries = [];
        for (const entry of rest.join(' ').split(', '))
          this.#feed.entries.push(await this.#origin(entry.split(' ')));
      },
      gap: () => this.#feed.follower?.onGap(),
      hold: () => void (this.#feed.until = new Promise((resolve) => (this.#release = resolve))),
      release: () => this.#release(),
      occupy: async () =>
        void this.#clients.set('service', await Peer.open(this.#test, CAPTURED, Number(name))),
    };
    if (steps[word] !== undefined) await steps[word]();
    else if (/^\d/.test(word)) this.#answer(this.#backend(word), rest.join(' '));
    else await this.#send(word, rest.join(' '));
  }

  #retries(name: string): number {
    return this.#rig.manager.traffic.of('ha-ports', `nvas/${at(Number(name))}`, 'udp').connectRetries;
  }

  async #pass(ms: number, stepMs: number): Promise<void> {
    for (let doneMs = 0; doneMs < ms; doneMs += stepMs) {
      this.#rig.pass(stepMs);
      // A listing is answered in between.
      await turns(1);
    }
  }

  /** An entry of the kernel's, as `a 20053 5001` says. */
  async #origin([
    name = '',
    port,
    source = '5000',
    destination = CAPTURED,
  ]: readonly string[]): Promise<FlowOrigin> {
    const client = await this.#client(name);
    const seen =
      source === 'itself'
        ? { source: client.address, sourcePort: client.port }
        : { sourcePort: Number(source) };
    const origin = this.#feed.origin(client, Number(port), { ...seen, destination });
    this.#origins.set(name, origin);
    return origin;
  }

  #originOf(name: string): FlowOrigin {
    return this.#origins.get(name) ?? assert.fail(`No entry for ${name}`);
  }

  /** Besides those of listeners and of the test. */
  get #sockets(): number {
    return openDescriptors() - this.#descriptors - this.#clients.size - this.#backends.length;
  }

  get #port(): number {
    return this.#listeners[0]?.port ?? assert.fail('No listener');
  }

  async #client(name: string): Promise<Peer> {
    const client =
      this.#clients.get(name) ?? (await Peer.open(this.#test, at(100 + name.charCodeAt(0) - 97)));
    this.#clients.set(name, client);
    return client;
  }

  async #send(name: string, words: string): Promise<void> {
    const [text = '', port] = words.split(' to ');
    const address = port !== undefined && this.#setting.captured === true ? CAPTURED : SOCKET;
    (await this.#client(name)).send(text, { address, port: Number(port ?? this.#port) });
  }

  #answer(backend: Peer, words: string): void {
    const [text = '', end] = words.split(' to #');
    const [address = '', port] =
      this.#ends[Number(end) - 1]?.split(' ') ?? assert.fail(`Nothing came from #${end}`);
    backend.send(text, { address, port: Number(port) });
  }

  #apply(names: readonly string[], digest = this.#digest): void {
    this.#rig.apply(stateOf(this.#setting, names, ++this.#revision, digest));
  }

  /** On all ports. */
  async #open(address: string, isSilent: boolean): Promise<void> {
    for (const [index, port] of (this.#setting.ports ?? [this.#port]).entries()) {
      const name = index === 0 ? address : `${address}:${port}`;
      const answer = ({ text }: { readonly text: string }): string => `${name}:${text}`;
      const offset = this.#setting.rule?.portOffset ?? 0;
      const peer = await Peer.open(
        this.#test,
        at(Number(address)),
        port + offset,
        isSilent ? undefined : answer,
      );
      this.#backends.push({ name, isSilent, peer });
    }
  }

  #backend(name: string): Peer {
    return (
      this.#backends.findLast((one) => one.name === name)?.peer ?? assert.fail(`No backend ${name} runs`)
    );
  }

  /** Since the beginning. */
  #outcomes(): readonly string[] {
    const heard = [...this.#clients].flatMap(([name, { received }]) =>
      received.map(({ text, from: { address, port } }) => {
        const from = port === this.#port ? '' : ` from ${port}`;
        return `${name} gets ${text}${[SOCKET, CAPTURED].includes(address) ? from : ` from ${address}`}`;
      }),
    );
    const got = this.#backends
      .filter(({ isSilent }) => isSilent)
      .flatMap(({ name, peer }) =>
        peer.received.map(({ text, from }) => `${name} gets ${text} from ${this.#endOf(from)}`),
      );
    const drops = Object.entries(this.#rig.manager.traffic.arrivals('ha-ports', 'udp').drops).flatMap(
      ([reason, count]) => Array.from({ length: count }, () => `dropped ${reason}`),
    );
    return [...heard, ...got, ...drops, ...this.#rig.allEvents().map((event) => this.#eventText(event))];
  }

  #endOf({ address, port }: { readonly address: string; readonly port: number }): string {
    const end = `${address} ${port}`;
    if (!this.#ends.includes(end)) this.#ends.push(end);
    return `#${this.#ends.indexOf(end) + 1}`;
  }

  #eventText(event: PlaneEvent): string {
    switch (event.type) {
      case 'flow-started': {
        const { backendId, reason, tuple } = event.flow;
        const port = tuple.destinationPort === this.#port ? '' : `:${tuple.destinationPort}`;
        const source = tuple.source.text === MADE_UP ? ` of ${tuple.sourcePort}` : '';
        return `started ${short(backendId)}${port} ${reason}${source}`;
      }
      case 'flow-moved': {
        const { backendId, reason, excluded } = event.flow;
        const past = excluded.length === 0 ? '' : ` past ${excluded.map(short).join(' ')}`;
        return `moved ${short(event.fromBackendId)} to ${short(backendId)} ${reason}${past}`;
      }
      case 'source-port-pressure':
        return `source ports ${event.pressure}`;
      case 'flow-ended':
        return `ended ${event.end}`;
      case 'passive-failure':
        return `failed ${short(event.backendId)} ${event.evidence}`;
      case 'port-refused':
        return `refused ${short(event.backendId)}`;
      case 'overload':
        return `overload ${event.phase}`;
      case 'kernel-changed':
      case 'listening-changed':
      case 'table-pressure':
      case 'worker-lost':
        return event.type;
    }
  }
}

function short(backendId: string): string {
  return backendId.slice(backendId.lastIndexOf('.') + 1);
}

function stateOf(
  { rule, policy = {}, limits = {}, pool = {}, captured = false }: Setting,
  names: readonly string[],
  revision = 1,
  digest = 'a',
): ForwardingState {
  const backends = names.map((name): TestBackend => {
    const address = at(Number.parseInt(name));
    if (name.endsWith('-')) return { address, valid: false };
    return name.endsWith('~') ? { address, eligible: false } : { address };
  });
  const changed = Object.entries(policy).map(([trigger, udp]) => [trigger, { tcp: 'persist', udp }]);
  const flowPolicy = { ...AZURE_POLICY, ...Object.fromEntries(changed) } as Rule['flowPolicy'];
  const frontend = { address: ipAddress(captured ? CAPTURED : SOCKET) };
  return testState({ backends, revision, digest, limits, pool, frontend, rule: { flowPolicy, ...rule } });
}

/** `dropped stopping x3`, three times. */
function repeated(outcome: string): readonly string[] {
  const [, one = outcome, times = '1'] = /^(.*) x(\d+)$/.exec(outcome) ?? [];
  return one === '' ? [] : Array.from({ length: Number(times) }, () => one);
}

/** What one hears stays as it came; of several, and what is only counted, it may come in any order. */
function byTeller(outcomes: readonly string[]): readonly string[] {
  const rank = (outcome: string): string =>
    outcome.startsWith('dropped') ? outcome : outcome.slice(0, outcome.indexOf(' '));
  return outcomes.toSorted((a, b) => (rank(a) < rank(b) ? -1 : rank(a) > rank(b) ? 1 : 0));
}

async function turns(count: number): Promise<void> {
  for (let done = 0; done < count; done++) await new Promise((resolve) => setImmediate(resolve));
}
