import type { Request } from '../../api/contract.js';
import type { LiveExplanation } from '../../api/views.js';
import * as words from '../../api/words.js';
import type { ApiError, PageApi } from './api.js';
import { h, useLayoutEffect, useRef, useState } from 'htm/preact/standalone';
import { Select, TextField } from './widgets.js';

/** Addresses as they were typed. */
export type AskedTuple = Request<'explain'>;

const ENDPOINTS = [
  ['source', 'Source (client)', '192.0.2.7:40000'],
  ['destination', 'Destination (frontend)', '127.0.0.1:8000'],
] as const;

interface Answered {
  readonly explanation?: LiveExplanation;
  readonly error?: ApiError;
}

/**
 * "Where does this flow go?" `asked` is what another part of the page wants explained; `onRoute` gets the nodes of the
 * picture that the flow passes.
 */
export function Explain(props: {
  api: PageApi;
  asked: AskedTuple | undefined;
  onRoute: (nodes: readonly string[]) => void;
}) {
  const { api, asked, onRoute } = props;
  const [tuple, setTuple] = useState<AskedTuple>({ protocol: 'tcp', source: '', destination: '' });
  const [answer, setAnswer] = useState<Answered>({});
  const { explanation, error } = answer;
  const latest = useRef<AskedTuple | undefined>(undefined);
  const set = (part: Partial<AskedTuple>): void => setTuple({ ...tuple, ...part });

  async function ask(wanted: AskedTuple): Promise<void> {
    latest.current = wanted;
    const { protocol, source, destination } = wanted;
    const query = { protocol, source: source.trim(), destination: destination.trim() };
    const next = await api.explain(query).then(
      (explained): Answered => ({ explanation: explained }),
      (refusal: unknown): Answered => ({ error: refusal as ApiError }),
    );
    // A question asked since has its own answer.
    if (latest.current !== wanted) return;
    setAnswer(next);
    onRoute(next.explanation === undefined ? [] : routeOf(next.explanation));
  }

  // Before the next key is pressed, so that nothing typed is lost.
  useLayoutEffect(() => {
    if (asked === undefined) return;
    setTuple(asked);
    void ask(asked);
  }, [asked]);

  return (
    <div>
      <form class="fields" onSubmit={(event) => (event.preventDefault(), void ask(tuple))}>
        <Select
          label="Protocol"
          value={tuple.protocol}
          options={[
            ['tcp', 'TCP'],
            ['udp', 'UDP'],
          ]}
          onSet={(protocol) => set({ protocol })}
        />
        {ENDPOINTS.map(([name, label, placeholder]) => (
          <TextField
            key={name}
            {...{ name, label, placeholder }}
            required
            spellcheck={false}
            value={tuple[name]}
            onSet={(value) => set({ [name]: value })}
          />
        ))}
        <button type="submit" class="primary">
          Explain
        </button>
      </form>
      <div class="answer" aria-live="polite">
        {error !== undefined && <p class="failure">{error.text}</p>}
        {explanation !== undefined && (
          <p class="sentence">{`${explanation.tuple}: ${explanation.verdict}`}</p>
        )}
        {explanation === undefined && error === undefined && (
          <p class="hint">Shows the data plane’s decision, step by step. No packet is sent.</p>
        )}
      </div>
      {explanation !== undefined && <Details explanation={explanation} nowMs={api.now()} />}
    </div>
  );
}

/** Names of the nodes of the picture that the flow passes. */
function routeOf({ rule, result, flow }: LiveExplanation): readonly string[] {
  if (rule === undefined) return [];
  const backend = flow?.backendId ?? (result.kind === 'picked' ? result.backendId : undefined);
  const nodes = [`frontend:${rule.frontend}`, `rule:${rule.name}`, `pool:${rule.backendPool}`];
  return backend === undefined ? nodes : [...nodes, `backend:${backend}`];
}

function Details({ explanation, nowMs }: { explanation: LiveExplanation; nowMs: number }) {
  const { flow, key, candidates } = explanation;
  const { rule, hash, behaviour } = words.explanationRows(explanation);
  const fields = key?.fields.map(({ name, value, hex }) => [name, `${value} (${hex})`] as const) ?? [];
  return (
    <div class="details">
      <Facts title="How it was decided" facts={{ ...rule, ...hash }} />
      <Facts title="The flow" facts={{ 'Live flow': flow && words.flowTexts(flow, nowMs), ...behaviour }} />
      {fields.length > 0 && <Facts title="Fields that are hashed" facts={Object.fromEntries(fields)} />}
      {candidates.length > 0 && (
        <section>
          <h3>Candidates</h3>
          <ul class="candidates">
            {candidates.map((one) => {
              const { facts, verdict } = words.candidateTexts(one, explanation.rule?.probe);
              return (
                <li key={one.id} class={one.chosen ? 'chosen' : ''}>
                  <strong>{one.name}</strong>
                  {` ${one.address}, ${facts.join(', ')}`}
                  <em>{verdict}</em>
                </li>
              );
            })}
          </ul>
        </section>
      )}
    </div>
  );
}

function Facts({ title, facts }: { title: string; facts: Readonly<Record<string, words.Texts>> }) {
  return (
    <section>
      <h3>{title}</h3>
      <dl class="facts-list">
        {words.textRows(facts).map(([label, texts]) => (
          <div key={label}>
            <dt>{label}</dt>
            <dd>
              {texts.map((text) => (
                <p key={text}>{text}</p>
              ))}
            </dd>
          </div>
        ))}
      </dl>
    </section>
  );
}
