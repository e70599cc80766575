import { ROUTES, type OperationName, type Operations } from '../../../src/api/contract.js';
import type { FeedEvent } from '../../../src/api/views.js';
import { BalancerError } from '../../../src/model/errors.js';
import * as answers from '../../support/api-answers.js';
import { assertShape } from '../../support/contract.js';

/** Events that tests make. */
export class FakeFeed {
  readonly events: FeedEvent[] = [];
  readonly listeners = new Set<(event: FeedEvent) => void>();
  /** Ids that readers asked to resume from. */
  readonly resumed: number[] = [];

  since(id: number): readonly FeedEvent[] {
    this.resumed.push(id);
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

const DRAIN = answers.aDrain({ backendId: 'nvas/fd00::b' });

const ANSWERS: Operations = {
  status: () => Promise.resolve(answers.aStatus({ drains: [DRAIN] })),
  frontends: () => Promise.resolve([answers.aFrontend()]),
  rules: () => Promise.resolve([answers.aRuleView()]),
  pools: () => Promise.resolve([answers.aPool()]),
  pool: ({ pool }) => (pool === 'nvas' ? Promise.resolve(answers.aPool()) : notFound()),
  flows: () => Promise.resolve(answers.aFlowList([answers.aFlow(1)])),
  explain: () => Promise.resolve(answers.anExplanation()),
  setAdminState: () => Promise.resolve(),
  setWeight: () => Promise.resolve(),
  drain: () => Promise.resolve(DRAIN),
  drainStatus: ({ backend }) => (backend === 'nva-2' ? notFound() : Promise.resolve(DRAIN)),
  cancelDrain: () => Promise.resolve(),
  drains: () => Promise.resolve([DRAIN]),
  plan: () => Promise.resolve({ findings: [], report: answers.aPlan() }),
  reload: () => Promise.resolve(answers.aReload()),
  upgrade: () => Promise.resolve(answers.anUpgrade()),
  simulate: () => Promise.resolve(answers.aSimulation()),
};

/** Keeps each call as `[name, request]`. What is answered can be replaced, and must be as the contract describes it. */
export class FakeOperations {
  readonly calls: unknown[][] = [];
  readonly events = new FakeFeed();

  with(replaced: Partial<Operations> = {}): Operations {
    const recorded = Object.entries({ ...ANSWERS, ...replaced }).map(([name, operation]) => [
      name,
      async (request: never) => {
        this.calls.push([name, request]);
        const answer: unknown = await operation(request);
        const route = ROUTES[name as OperationName];
        if ('answer' in route) assertShape(route.answer, JSON.parse(JSON.stringify(answer)));
        return answer;
      },
    ]);
    return Object.fromEntries(recorded) as Operations;
  }
}

function notFound(): Promise<never> {
  return Promise.reject(new BalancerError('There is none', { code: 'LB_NOT_FOUND', source: 'usage' }));
}
