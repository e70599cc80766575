import { BalancerError, errorMessage, type ErrorCode, type ErrorSource } from '../../model/errors.js';
import type { BackendState, ForwardingState, PoolView } from '../../model/forwarding.js';
import type { Clock } from '../../runtime/clock.js';
import type { Channel } from '../../runtime/peer.js';
import { receivedSocket, type ListeningSocket } from '../contract.js';

/*
 * Typed calls between a control process and a data worker. An API is an interface of functions: those that return a
 * promise are calls with an answer and a deadline, those that return nothing are one-way. Messages arrive in the order
 * sent. A ListeningSocket as first argument travels with its handle, a ForwardingState without what the other side has.
 */

/** For each function of an API: how long its answer may take, in ms. */
export type Deadlines<Api> = {
  readonly [Method in keyof Api]: Api[Method] extends (...args: infer Args) => infer Result
    ? Result extends Promise<unknown>
      ? number | ((...args: Args) => number)
      : 'one-way'
    : never;
};

interface CallMessage {
  readonly method: string;
  /** Absent: one-way. */
  readonly call?: number;
  readonly args: readonly unknown[];
  /** The first argument is a StateMessage. */
  readonly state?: true;
}

interface AnswerMessage {
  readonly answer: number;
  readonly value?: unknown;
  readonly error?: { readonly message: string; readonly code: ErrorCode; readonly source: ErrorSource };
}

interface Pending {
  readonly resolve: (value: unknown) => void;
  readonly reject: (error: BalancerError) => void;
  readonly cancel: () => void;
}

export interface RemoteDeps {
  readonly clock: Clock;
  /** A call was not answered by its deadline; it has been rejected with `LB_WORKER_LOST`. */
  readonly onOverdue?: (error: BalancerError) => void;
}

type AnyFunction = (...args: unknown[]) => unknown;

/**
 * The other process's API. Calls reject with `LB_WORKER_LOST` once the channel is closed, or past their deadline, and
 * with the other side's error where that failed.
 */
export function remote<Api extends object>(
  channel: Channel,
  deadlines: Deadlines<Api>,
  { clock, onOverdue }: RemoteDeps,
): Api {
  const pending = new Map<number, Pending>();
  let nextCall = 1;
  let closed = false;
  const states = new StateSender();

  const send = (message: CallMessage): void => {
    const [first, ...rest] = message.args;
    if (isSocket(first)) {
      const { protocol, address, port } = first;
      channel.send({ ...message, args: [{ protocol, address, port }, ...rest] }, first);
    } else if (isState(first)) channel.send({ ...message, args: [states.pack(first), ...rest], state: true });
    else channel.send(message);
  };
  const settle = (call: number): Pending | undefined => {
    const waiting = pending.get(call);
    pending.delete(call);
    waiting?.cancel();
    return waiting;
  };
  const ask = (method: string, args: readonly unknown[], limitMs: number): Promise<unknown> => {
    if (closed) return Promise.reject(workerLost());
    return new Promise((resolve, reject) => {
      const call = nextCall++;
      const cancel = clock.setTimer(limitMs, () => {
        settle(call)?.reject(workerLost());
        onOverdue?.(overdue(method, limitMs));
      });
      pending.set(call, { resolve, reject, cancel });
      send({ method, call, args });
    });
  };

  channel.onMessage((message) => {
    if (!isAnswer(message)) return;
    const { answer, value, error } = message;
    if (error === undefined) settle(answer)?.resolve(value);
    else settle(answer)?.reject(new BalancerError(error.message, error));
  });
  channel.onClose(() => {
    closed = true;
    for (const call of [...pending.keys()]) settle(call)?.reject(workerLost());
  });

  const entries = Object.entries<number | 'one-way' | AnyFunction>(deadlines);
  return Object.fromEntries(
    entries.map(([method, deadline]): [string, AnyFunction] => [
      method,
      deadline === 'one-way'
        ? (...args) => send({ method, args })
        : (...args) =>
            ask(method, args, typeof deadline === 'number' ? deadline : (deadline(...args) as number)),
    ]),
  ) as Api;
}

/** Serves the other process's calls of this API. An error arrives there with its code, source and message. */
// The parameter has callers name the API that they serve, so that it is checked whole.
// eslint-disable-next-line @typescript-eslint/no-unnecessary-type-parameters
export function expose<Api extends object>(channel: Channel, api: Api): void {
  const methods = new Map(Object.entries(api as Record<string, AnyFunction>));
  const states = new StateReceiver();
  channel.onMessage((message, handle) => {
    if (!isCall(message)) return;
    const { call, method, state, args } = message;
    const [first, ...rest] = args;
    // Both ends are one build, so the method exists and takes these arguments.
    let given = args;
    if (handle !== undefined) given = [receivedSocket(first as ListeningSocket, handle), ...rest];
    else if (state === true) given = [states.unpack(first as StateMessage), ...rest];
    const run = (): unknown => methods.get(method)?.(...given);
    if (call === undefined) run();
    else void answer(channel, call, run);
  });
}

async function answer(channel: Channel, call: number, run: () => unknown): Promise<void> {
  let message: AnswerMessage;
  try {
    message = { answer: call, value: await run() };
  } catch (error) {
    const { code, source } =
      error instanceof BalancerError ? error : ({ code: 'LB_INTERNAL', source: 'internal' } as const);
    message = { answer: call, error: { message: errorMessage(error), code, source } };
  }
  channel.send(message);
}

/** The error of every call that a worker did not live to answer. */
export function workerLost(): BalancerError {
  return new BalancerError('The data worker is gone', { code: 'LB_WORKER_LOST', source: 'system' });
}

export function isWorkerLost(error: unknown): boolean {
  return error instanceof BalancerError && error.code === 'LB_WORKER_LOST';
}

function overdue(method: string, limitMs: number): BalancerError {
  return new BalancerError(
    `The data worker did not answer "${method}" within ${Math.round(limitMs / 1000)} s`,
    { code: 'LB_INTERNAL', source: 'internal' },
  );
}

function isCall(message: unknown): message is CallMessage {
  return typeof message === 'object' && message !== null && 'method' in message;
}

function isAnswer(message: unknown): message is AnswerMessage {
  return typeof message === 'object' && message !== null && 'answer' in message;
}

function isSocket(argument: unknown): argument is ListeningSocket {
  return typeof argument === 'object' && argument !== null && 'handle' in argument;
}

function isState(argument: unknown): argument is ForwardingState {
  return typeof argument === 'object' && argument !== null && 'views' in argument;
}

/*
 * A forwarding state on its way to another process. A configuration is a graph of linked objects and a table has 128 KiB:
 * both cross once, and after that only what has changed in a pool's view.
 */

/** What a forwarding state has that the one before it, of the same configuration, had not. */
interface StateChange {
  readonly revision: number;
  /** By index into `views`; the others are as before. */
  readonly views: ReadonlyMap<number, ViewChange>;
}

interface ViewChange extends Pick<PoolView, 'servingPriority'> {
  /** In the order of the pool. */
  readonly members: readonly Omit<BackendState, 'backend'>[];
  /** Undefined: as before. */
  readonly tables: Pick<PoolView, 'table' | 'failOpenTable'> | undefined;
}

/** Means something only to a StateReceiver that has had all messages before this one. */
export type StateMessage = { readonly whole: ForwardingState } | { readonly change: StateChange };

/** Leaves out what the other process has already. Every state that it packs must be sent, in this order. */
export class StateSender {
  #last: ForwardingState | undefined;

  pack(state: ForwardingState): StateMessage {
    const last = this.#last;
    this.#last = state;
    if (last?.configuration !== state.configuration) return { whole: state };
    const views = new Map<number, ViewChange>();
    for (const [index, view] of state.views.entries()) {
      // Of one configuration there are always the same views, in the same order.
      const before = last.views[index];
      if (before !== undefined && view !== before) views.set(index, changeOf(before, view));
    }
    return { change: { revision: state.revision, views } };
  }
}

function changeOf(
  before: PoolView,
  { backends, servingPriority, table, failOpenTable }: PoolView,
): ViewChange {
  const haveChanged = table !== before.table || failOpenTable !== before.failOpenTable;
  return {
    members: backends.map(({ backend: _, ...member }) => member),
    servingPriority,
    tables: haveChanged ? { table, failOpenTable } : undefined,
  };
}

/** The other end: gives states whose views are linked to their configuration as the sender's are. */
export class StateReceiver {
  #last: ForwardingState | undefined;

  /** Throws TypeError on a change of a state that has not come. */
  unpack(message: StateMessage): ForwardingState {
    this.#last = 'whole' in message ? message.whole : changed(this.#last, message.change);
    return this.#last;
  }
}

function changed(last: ForwardingState | undefined, { revision, views }: StateChange): ForwardingState {
  if (last === undefined) throw new TypeError(`Revision ${revision} came without the state that it changes`);
  return {
    ...last,
    revision,
    views: last.views.map((view, index) => {
      const change = views.get(index);
      if (change === undefined) return view;
      const { members, servingPriority, tables } = change;
      const backends = view.pool.backends.flatMap((backend, index) => {
        const member = members[index];
        return member === undefined ? [] : [{ ...member, backend }];
      });
      return { ...view, ...tables, servingPriority, backends };
    }),
  };
}
