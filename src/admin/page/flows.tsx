import type { Request } from '../../api/contract.js';
import type { BackendPoolView, FlowList, FlowView, RuleView } from '../../api/views.js';
import { REASONS, bitRate, bytes, clientOf, count, frontendOf, span } from '../../api/words.js';
import { repeat, type ApiError, type PageApi } from './api.js';
import type { AskedTuple } from './explain.js';
import { h, useEffect, useMemo, useRef, useState } from 'htm/preact/standalone';
import { Button, Select, TextField, cells } from './widgets.js';

const EVERY_MS = 2000;
const SHOWN = 100;

type Filter = Pick<Request<'flows'>, 'rule' | 'backend' | 'protocol' | 'source' | 'state' | 'reason'>;
type Sort = NonNullable<Request<'flows'>['sort']>;

const STATES = ['embryonic', 'established', 'half-closed', 'blackholed'] as const;
const FILTERS = [
  ['Rule', 'rule'],
  ['Backend', 'backend'],
  ['Protocol', 'protocol'],
  ['State', 'state'],
  ['Reason', 'reason'],
] as const;
const SORTS = ['age', 'idle', 'bytes', 'rate', 'none'] as const;

/** Live flows, filtered and sorted by the server: there may be a million of them. */
export function Flows(props: {
  api: PageApi;
  rules: readonly RuleView[];
  pools: readonly BackendPoolView[];
  onExplain: (tuple: AskedTuple) => void;
}) {
  const { api, rules, pools, onExplain } = props;
  const [filter, setFilter] = useState<Filter>({});
  const [sort, setSort] = useState<Sort>('age');
  const [paused, setPaused] = useState(false);
  const [list, setList] = useState<Partial<FlowList> & { readonly error?: ApiError }>({});
  const query = useMemo(() => ({ ...filter, sort, limit: SHOWN }), [filter, sort]);
  const wanted = useRef(query);
  wanted.current = query;

  async function load(): Promise<void> {
    if (api.locked || document.hidden) return;
    const asked = wanted.current;
    try {
      const answer = await api.flows(asked);
      if (asked === wanted.current) setList(answer);
    } catch (error) {
      setList((last) => ({ ...last, error: error as ApiError }));
    }
  }

  useEffect(() => {
    if (paused) return undefined;
    const polling = repeat(load, EVERY_MS);
    return () => polling.stop();
  }, [paused, query]);

  const choices = {
    rule: rules.map(({ name }) => name),
    backend: pools.flatMap((pool) =>
      pool.backends.map(({ id, name }) => [id, `${pool.name}/${name}`] as const),
    ),
    protocol: [['tcp', 'TCP'] as const, ['udp', 'UDP'] as const],
    state: STATES,
    reason: Object.keys(REASONS),
  };
  return (
    <div>
      <form class="fields" onSubmit={(event) => (event.preventDefault(), void load())}>
        {FILTERS.map(([label, key]) => (
          <Select
            key={key}
            label={label}
            name={key}
            value={filter[key] ?? ''}
            options={[['', 'any'], ...choices[key]]}
            onSet={(value) => setFilter({ ...filter, [key]: value || undefined })}
          />
        ))}
        <TextField
          label="Client address"
          name="source"
          spellcheck={false}
          placeholder="any"
          value={filter.source ?? ''}
          onChange={(event) =>
            setFilter({ ...filter, source: event.currentTarget.value.trim() || undefined })
          }
        />
        <Select label="Sort by" value={sort} options={SORTS} onSet={setSort} />
        <Button
          text={paused ? 'Paused: resume' : 'Pause'}
          aria-pressed={paused}
          onClick={() => setPaused(!paused)}
        />
      </form>
      <p class="hint">
        {list.error === undefined ? (
          `${count(list.flows?.length ?? 0)} shown of ${count(list.matched ?? 0)} that match`
        ) : (
          <span class="failure" role="alert">
            {list.error.text}
          </span>
        )}
      </p>
      <div class="scroll flows" role="region" aria-label="Live flows" tabindex={0}>
        <table class="cards" role="table" aria-label="Live flows">
          <thead>
            <tr>
              {COLUMNS.map(([name, key]) => (
                <th key={name} scope="col" aria-sort={key === sort ? 'descending' : undefined}>
                  {key === undefined ? (
                    name
                  ) : (
                    <Button
                      text={`${name}${key === sort ? ' ▾' : ''}`}
                      class="plain"
                      onClick={() => setSort(key)}
                    />
                  )}
                </th>
              ))}
              <th scope="col">
                <span class="hidden">Explain</span>
              </th>
            </tr>
          </thead>
          <tbody>
            {list.flows?.map((flow) => (
              <Flow
                key={flow.id}
                flow={flow}
                backend={nameOf(pools, flow.backendId)}
                nowMs={api.now()}
                onExplain={onExplain}
              />
            ))}
          </tbody>
        </table>
        {list.flows?.length === 0 && <p class="empty">No flow matches.</p>}
      </div>
    </div>
  );
}

/** With the key that the server sorts by, where it can. */
const COLUMNS: readonly (readonly [name: string, key?: Sort])[] = [
  ...([['Flow'], ['Backend'], ['State'], ['Reason']] as const),
  ...([
    ['Age', 'age'],
    ['Idle', 'idle'],
    ['Bytes', 'bytes'],
    ['Rate', 'rate'],
  ] as const),
];

function nameOf(pools: readonly BackendPoolView[], backendId: string): string {
  return pools.flatMap(({ backends }) => backends).find(({ id }) => id === backendId)?.name ?? backendId;
}

function Flow(props: {
  flow: FlowView;
  backend: string;
  nowMs: number;
  onExplain: (tuple: AskedTuple) => void;
}) {
  const { flow, backend, nowMs, onExplain } = props;
  const { protocol } = flow.tuple;
  const source = clientOf(flow.tuple);
  const destination = frontendOf(flow.tuple);
  const rate = flow.bitsPerSecond === undefined ? '–' : bitRate(flow.bitsPerSecond);
  return (
    <tr>
      <th scope="row">
        {`${protocol} ${source}`}
        <small>{`→ ${destination} (${flow.rule})`}</small>
      </th>
      {cells([
        ['Backend', backend, flow.backendEndpoint],
        ['State', flow.state],
        ['Reason', flow.reason, undefined, REASONS[flow.reason]],
        ['Age', span(nowMs - flow.openedAtMs)],
        ['Idle', span(flow.idleMs)],
        ['Bytes', `→ ${bytes(flow.bytesToBackend)}`, `← ${bytes(flow.bytesToClient)}`],
        ['Rate', rate, undefined, 'Known while the list is sorted by rate'],
      ])}
      <td class="actions">
        <Button
          text="Explain"
          aria-label={`Explain ${protocol} ${source}`}
          onClick={() => onExplain({ protocol, source, destination })}
        />
      </td>
    </tr>
  );
}
