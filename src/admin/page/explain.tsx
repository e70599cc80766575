import type { Request } from '../../api/contract.js';
import type { LiveExplanation } from '../../api/views.js';
import type { ApiError, PageApi } from './api.js';
import { candidateText, factsOf, flowFacts, routeOf, type Fact } from './explanation.js';
import { bytes, percent } from './format.js';
import { h, useLayoutEffect, useRef, useState } from './htm-preact.js';
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

function Details({ explanation, nowMs }: { explanation: LiveExplanation; nowMs: number }) {
  const { flow, key, candidates } = explanation;
  return (
    <div class="details">
      {flow !== undefined && (
        <Facts
          title="The live flow"
          facts={[
            ...flowFacts(flow, nowMs),
            ['Bytes', `→ ${bytes(flow.bytesToBackend)}, ← ${bytes(flow.bytesToClient)}`],
          ]}
        />
      )}
      <Facts title="How it was decided" facts={factsOf(explanation)} />
      {key !== undefined && (
        <Facts
          title="Fields that are hashed"
          facts={key.fields.map(({ name, value, hex }) => [name, `${value} (${hex})`])}
        />
      )}
      {candidates.length > 0 && (
        <section>
          <h3>Candidates</h3>
          <ul class="candidates">
            {candidates.map((one) => (
              <li key={one.id} class={one.chosen ? 'chosen' : ''}>
                <strong>{one.name}</strong>
                {` ${one.address}, share ${percent(one.share)}, weight ${one.effectiveWeight}, probe ${one.health}, admin ${one.adminState}`}
                <em>{candidateText(one)}</em>
              </li>
            ))}
          </ul>
        </section>
      )}
    </div>
  );
}

function Facts({ title, facts }: { title: string; facts: readonly Fact[] }) {
  return (
    <section>
      <h3>{title}</h3>
      <dl class="facts-list">
        {facts.map(([name, value]) => (
          <div key={name}>
            <dt>{name}</dt>
            <dd>{value}</dd>
          </div>
        ))}
      </dl>
    </section>
  );
}
