import type { BackendState, ForwardingState, PoolView } from '../../model/forwarding.js';

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
