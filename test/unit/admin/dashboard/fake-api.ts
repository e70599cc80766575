import { AdminServer } from '../../../../src/admin/server.js';
import type { Operations } from '../../../../src/api/contract.js';
import type { BackendView, DrainStatus } from '../../../../src/api/views.js';
import { ipAddress } from '../../../../src/model/address.js';
import { BalancerError } from '../../../../src/model/errors.js';
import { systemClock } from '../../../../src/runtime/clock.js';
import { systemSocketFiles } from '../../../../src/runtime/files.js';
import {
  aBackendView,
  aDrain,
  aFlow,
  aFlowList,
  aFrontend,
  aPickedExplanation,
  aPool,
  aRuleView,
  aStatus,
  aTraffic,
  NO_TRAFFIC,
  NOW_MS,
} from '../../../support/api-answers.js';
import { FakeOperations } from '../fake-operations.js';

const DOWN: Partial<BackendView> = {
  serving: false,
  valid: false,
  exclusion: 'probe-down',
  health: 'down',
  hashShare: 0,
  traffic: NO_TRAFFIC,
  probes: [
    {
      probe: 'alive',
      state: 'down',
      consecutiveSuccesses: 0,
      consecutiveFailures: 88,
      transitions: 2,
      last: { verdict: 'failure', evidence: 'ECONNREFUSED', durationMs: 0.4 },
      history: [{ atMs: NOW_MS - 440_000, from: 'up', to: 'down', evidence: 'ECONNREFUSED' }],
    },
  ],
};

/** nva-1 and so on; each has more traffic than the one before. */
export function aNode(number: number, more: Partial<BackendView> = {}): BackendView {
  const traffic = aTraffic({ flowsActive: 40, bitsToBackendPerSecond: 16_000_000 * number });
  return aBackendView(`nva-${number}`, `127.0.0.${10 + number}`, { traffic, ...more });
}

/** Frontends, rules and flows that the page draws; the second of each has little traffic. */
const FRONTENDS = [
  aFrontend(),
  aFrontend({ name: 'hub-v6', address: '::1', rules: [], traffic: NO_TRAFFIC }),
];
const RULES = [
  aRuleView(),
  aRuleView({ name: 'dns', protocols: ['udp'], haPorts: false, ports: '53', traffic: NO_TRAFFIC }),
];
const FLOWS = Array.from({ length: 60 }, (_, index) => {
  const { tuple, ...flow } = aFlow(index + 1);
  return { ...flow, tuple: { ...tuple, protocol: index % 3 === 2 ? ('udp' as const) : ('tcp' as const) } };
});

/** The admin server with made-up answers, for tests of the page. */
export class FakeApi {
  /** What was asked, and events. */
  readonly fake = new FakeOperations();
  /** Refuse a drain with LB_CONFLICT until it is forced. */
  wantsForce = false;
  /** Refuse everything but the page. */
  broken = false;
  backends: readonly BackendView[] = [aNode(1), aNode(2), aNode(3), aNode(4, DOWN)];
  liveFlow = false;
  problems: readonly string[] = [];
  port = 0;
  #drain: DrainStatus | undefined;
  #server: AdminServer | undefined;

  constructor() {
    for (let revision = 1; revision <= 12; revision++)
      this.fake.events.tell(`Revision ${revision} is served`);
  }

  get url(): string {
    return `http://127.0.0.1:${this.port}/`;
  }

  /** The requests that change something. */
  get written(): readonly unknown[][] {
    return this.fake.calls.filter(([name]) => /^(set|drain$|cancel)/.test(String(name)));
  }

  /** On the same port as before; `token`: wanted by the API. */
  async start(token?: string): Promise<void> {
    const { fake } = this;
    const operations = fake.with({ ...this.#answers(), ...(this.broken && refusals()) });
    const http = { address: ipAddress('127.0.0.1'), port: this.port };
    this.#server = new AdminServer(
      {
        operations,
        events: fake.events,
        clock: systemClock,
        onEvent: () => undefined,
        files: systemSocketFiles,
      },
      { listen: { http, ...(token !== undefined && { token }) } },
    );
    this.port = (await this.#server.start()).httpPort ?? 0;
  }

  async stop(): Promise<void> {
    await this.#server?.stop();
  }

  /** Flows that the drained nva-2 still has. */
  setDrain(flowsLeft: number): DrainStatus {
    const nowMs = Date.now();
    this.#drain = aDrain({
      backendId: 'nvas/127.0.0.12',
      backendName: 'nva-2',
      phase: flowsLeft === 0 ? 'done' : 'draining',
      startedAtMs: nowMs,
      deadlineAtMs: nowMs + 600_000,
      flowsAtStart: 40,
      flows: { tcp: flowsLeft, udp: 0 },
      predictedFinishAtMs: nowMs + 75_000,
      lastNewFlowAtMs: nowMs - 400,
      longest: [],
    });
    return this.#drain;
  }

  #answers(): Partial<Operations> {
    return {
      status: () =>
        Promise.resolve(
          aStatus({ problems: this.problems, drains: this.#drain === undefined ? [] : [this.#drain] }),
        ),
      frontends: () => Promise.resolve(FRONTENDS),
      rules: () => Promise.resolve(RULES),
      pools: () => Promise.resolve([aPool({ backends: this.backends.map((one) => this.#withDrain(one)) })]),
      flows: ({ protocol = '' }) =>
        Promise.resolve(aFlowList(FLOWS.filter(({ tuple }) => tuple.protocol.includes(protocol)))),
      explain: () => {
        const flow = aFlow(1, { backendId: 'nvas/127.0.0.13', reason: 'pinned' });
        return Promise.resolve(aPickedExplanation(this.liveFlow ? { flow, verdict: LIVE } : {}));
      },
      setAdminState: ({ backend, adminState }) => {
        const [state, origin] =
          adminState === 'configured'
            ? (['none', 'configured'] as const)
            : ([adminState, 'operator'] as const);
        this.backends = this.backends.map((one) =>
          one.address === backend ? { ...one, adminState: state, adminStateOrigin: origin } : one,
        );
        return Promise.resolve();
      },
      drain: ({ force }) =>
        this.wantsForce && !force
          ? refuse('Pool "nvas" would have 0 serving backends, must keep 1')
          : Promise.resolve(this.setDrain(40)),
      cancelDrain: () => {
        this.#drain = undefined;
        return Promise.resolve();
      },
    };
  }

  #withDrain(backend: BackendView): BackendView {
    const drain = this.#drain;
    if (drain?.backendId !== backend.id) return backend;
    return { ...backend, serving: false, exclusion: 'draining', hashShare: 0, drain };
  }
}

const LIVE =
  'The live flow is on nvas/nva-3, but a new one would go to nvas/nva-2 at 127.0.0.12:8080: pinned';

function refusals(): Partial<Operations> {
  const answer = (): Promise<never> => refuse('The data plane does not answer');
  return { status: answer, frontends: answer, rules: answer, pools: answer };
}

function refuse(message: string): Promise<never> {
  return Promise.reject(new BalancerError(message, { code: 'LB_CONFLICT', source: 'usage' }));
}
