import { ROUTES, type OperationName, type Operations } from '../../../src/api/contract.js';
import type { DrainStatus, FeedEvent } from '../../../src/api/views.js';
import { BalancerError } from '../../../src/model/errors.js';
import * as answers from '../../support/api-answers.js';
import { assertShape } from '../../support/contract.js';

/** Events that tests make. */
export class FakeFeed {
  readonly events: FeedEvent[] = [];
  readonly listeners = new Set<(event: FeedEvent) => void>();

  since(id: number): readonly FeedEvent[] {
    return this.events.filter((event) => event.id > id);
  }

  subscribe(listener: (event: FeedEvent) => void): () => void {
    this.listeners.add(listener);
    return () => this.listeners.delete(listener);
  }

  tell(message: string): FeedEvent {
    const id = this.events.length + 1;
    const event: FeedEvent = { id, atMs: 1000 + id, level: 'info', type: 'told', message, fields: {} };
    this.events.push(event);
    for (const listener of [...this.listeners]) listener(event);
    return event;
  }
}

const DRAIN: DrainStatus = answers.aDrain({ backendId: 'nvas/fd00::b' });

/** Answers of all operations, each as the contract describes it. */
const ANSWERS = {
  status: answers.aStatus({ drains: [DRAIN] }),
  frontends: [answers.aFrontend()],
  rules: [answers.aRuleView()],
  pools: [answers.aPool()],
  pool: answers.aPool(),
  flows: answers.aFlowList([answers.aFlow(1)]),
  explain: answers.anExplanation(),
  setAdminState: undefined,
  setWeight: undefined,
  drain: DRAIN,
  drainStatus: DRAIN,
  cancelDrain: undefined,
  drains: [DRAIN],
  plan: { findings: [], report: answers.aPlan() },
  reload: answers.aReload(),
  upgrade: answers.anUpgrade(),
  simulate: answers.aSimulation(),
} satisfies Readonly<Record<OperationName, unknown>>;

/** Each call is kept as `[name, request]`; what is answered can be replaced. */
export class FakeOperations {
  readonly calls: unknown[][] = [];
  readonly events = new FakeFeed();

  with(replaced: Partial<Operations> = {}): Operations {
    const operations = Object.entries(ANSWERS).map(([name, answer]) => {
      const route = ROUTES[name as OperationName];
      if ('answer' in route) assertShape(route.answer, answer);
      return [
        name,
        (request: object) => {
          this.calls.push([name, request]);
          return Promise.resolve(answer);
        },
      ] as const;
    });
    const known = Object.fromEntries(operations) as unknown as Operations;
    return {
      ...known,
      pool: (request) => (request.pool === 'nvas' ? known.pool(request) : notFound()),
      drainStatus: (request) => (request.backend === 'nva-2' ? notFound() : known.drainStatus(request)),
      ...replaced,
    };
  }
}

function notFound(): Promise<never> {
  return Promise.reject(new BalancerError('There is none', { code: 'LB_NOT_FOUND', source: 'usage' }));
}
