// The backends of each pool, and what an operator can do to them.

import type { Request } from '../../api/contract.js';
import type { BackendPoolView, BackendView, DrainStatus } from '../../api/views.js';
import * as words from '../../api/words.js';
import type { ApiError, PageApi } from './api.js';
import { Condition, exclusionText } from './health.js';
import { h, useState } from 'htm/preact/standalone';
import { Button, Dialog, RadioGroup, TextField, cells } from './widgets.js';

/** With their widths in per cent, so that the tables of all pools line up. */
const COLUMNS = Object.entries({
  Backend: 9,
  Health: 10,
  'Share of hash space and of flows': 19,
  Flows: 13,
  Traffic: 10,
  Weight: 9,
  'Admin state': 9,
  Actions: 21,
});

const DIALOGS = { drain: DrainDialog, cancel: CancelDrainDialog, admin: AdminStateDialog };

interface Asked {
  readonly what: keyof typeof DIALOGS;
  readonly backend: BackendView;
}

interface Operator {
  api: PageApi;
  /** Gets a sentence for the announcer. */
  onDone: (text: string) => void;
}

interface Operation extends Operator {
  backend: BackendView;
  onClose: () => void;
}

/** One table a pool. */
export function Backends({ api, pools, onDone }: { pools: readonly BackendPoolView[] } & Operator) {
  const [asked, setAsked] = useState<Asked>();
  const AskedDialog = asked && DIALOGS[asked.what];
  // What is known of it now, not what it was when the button was pressed.
  const found = pools.flatMap((pool) => pool.backends).find(({ id }) => id === asked?.backend.id);
  return (
    <div>
      {pools.map((pool) => (
        <table key={pool.name} class="cards backends" role="table">
          <caption>
            {`Pool ${pool.name}: ${words.count(pool.serving)} of ${words.count(pool.backends.length)} serving, at least ${words.count(pool.minimumHealthy)} needed; used by ${pool.rules.join(', ') || 'no rule'}`}
          </caption>
          <thead>
            <tr>
              {COLUMNS.map(([name, width]) => (
                <th key={name} scope="col" style={{ width: `${width}%` }}>
                  {name}
                </th>
              ))}
            </tr>
          </thead>
          {pool.backends.map((backend) => (
            <Backend key={backend.id} backend={backend} nowMs={api.now()} onAsk={setAsked} />
          ))}
        </table>
      ))}
      {AskedDialog && (
        <AskedDialog
          key={`${asked.what} ${asked.backend.id}`}
          api={api}
          backend={found ?? asked.backend}
          onDone={onDone}
          onClose={() => setAsked(undefined)}
        />
      )}
    </div>
  );
}

function Backend(props: { backend: BackendView; nowMs: number; onAsk: (asked: Asked) => void }) {
  const { backend, nowMs, onAsk } = props;
  const { name, traffic, drain, lastNewFlowAtMs } = backend;
  const actions = [
    drain === undefined
      ? (['drain', 'Drain …', 'Drain'] as const)
      : (['cancel', 'Cancel drain …', 'Cancel the drain of'] as const),
    ['admin', 'Admin state …', 'Admin state of'] as const,
  ];
  return (
    <tbody>
      <tr id={`row-${backend.id}`} tabindex={-1}>
        <th scope="row">
          <strong>{name}</strong>
          <small>{backend.address}</small>
        </th>
        {cells([
          ['Health', <Condition backend={backend} />, exclusionText(backend) ?? `probe ${backend.health}`],
          ['Shares', <Shares backend={backend} />],
          [
            'Flows',
            words.count(traffic.flowsActive),
            `${words.si(traffic.newFlowsPerSecond)} new/s, last ${words.ago(lastNewFlowAtMs, nowMs)}`,
          ],
          [
            'Traffic',
            `→ ${words.bitRate(traffic.bitsToBackendPerSecond)}`,
            `← ${words.bitRate(traffic.bitsToClientPerSecond)}`,
          ],
          ['Weight', words.count(backend.weight), weightText(backend)],
          ['Admin state', backend.adminState, originText(backend)],
        ])}
        <td class="actions">
          {actions.map(([what, text, label], place) => (
            // By its place: a button that changes its meaning keeps the focus.
            <Button
              key={place}
              text={text}
              aria-label={`${label} ${name}`}
              onClick={() => onAsk({ what, backend })}
            />
          ))}
        </td>
      </tr>
      {drain !== undefined && (
        <tr class="wide">
          <td colspan={COLUMNS.length}>
            <DrainProgress drain={drain} nowMs={nowMs} />
          </td>
        </tr>
      )}
    </tbody>
  );
}

function weightText({ weightOrigin, priority, configuredWeight }: BackendView): string {
  if (weightOrigin === 'configured') return `priority ${priority}`;
  return `${weightOrigin}, not ${words.count(configuredWeight)}`;
}

function originText({ adminStateOrigin }: BackendView): string {
  return adminStateOrigin === 'operator' ? 'set by an operator' : 'as configured';
}

/** The share that it should get, and the one that it gets. */
function Shares({ backend: { hashShare, realShare } }: { backend: BackendView }) {
  return (
    <div class="shares">
      {Object.entries({ hash: hashShare, real: realShare }).map(([name, share]) => (
        <div key={name}>
          <span>{name}</span>
          <span class="bar">
            <span class={`fill ${name}`} style={{ width: `${Math.min(100, share * 100)}%` }} />
          </span>
          <span>{words.share(share)}</span>
        </div>
      ))}
    </div>
  );
}

/** Flows that are left, when they are likely to be gone, and what keeps them. */
function DrainProgress({ drain, nowMs }: { drain: DrainStatus; nowMs: number }) {
  const left = drain.flows.tcp + drain.flows.udp;
  const most = Math.max(drain.flowsAtStart, left, 1);
  return (
    <div class="drain">
      <p>
        <progress max={most} value={`${most - left}`} aria-label={`Drain of ${drain.backendName}`} />
        <strong>{drain.phase === 'done' ? 'Drained' : 'Draining'}</strong>
        {`: ${drainText(drain, nowMs)}`}
      </p>
      {drain.longest.length > 0 && (
        <details>
          <summary>Oldest flows</summary>
          <ul>
            {drain.longest.map(({ id, tuple, openedAtMs, idleMs }) => (
              <li key={id}>
                {`${words.tupleText(tuple)}, open for ${words.span(nowMs - openedAtMs)}, idle for ${words.span(idleMs)}`}
              </li>
            ))}
          </ul>
        </details>
      )}
    </div>
  );
}

/** All of it, in sentences. */
function drainText(drain: DrainStatus, nowMs: number): string {
  const { finish, deadline, 'last new': last } = words.drainFacts(drain, nowMs);
  const next =
    drain.phase === 'done'
      ? 'It gets no new flows until the drain is cancelled'
      : `Finish: ${finish}. Deadline ${deadline}`;
  return `${words.drainLeft(drain)}. ${next}. Last new flow ${last}.`;
}

const DURATION = '[0-9]+(ms|s|m|h|d)';

/** Asks for the deadline and what comes then. */
function DrainDialog({ api, backend, onDone, onClose }: Operation) {
  const { pool, address, name } = backend;
  const [request, setRequest] = useState<Omit<Required<Request<'drain'>>, 'pool' | 'backend'>>({
    deadline: '10m',
    then: 'reset',
    spread: '10s',
    force: false,
  });
  const [refused, setRefused] = useState(false);
  const set = (part: Partial<typeof request>): void => setRequest({ ...request, ...part });

  async function drain(): Promise<void> {
    try {
      await api.drain({ pool, backend: address, ...request });
    } catch (error) {
      setRefused(request.force || (error as ApiError).code === 'LB_CONFLICT');
      throw error;
    }
    onDone(`Drain of ${name} has started`);
  }

  return (
    <Dialog title={`Drain ${name} of pool ${pool}?`} confirm="Drain" onSubmit={drain} onClose={onClose}>
      <p>
        {`It gets no new flows from now on. The ${words.count(backend.traffic.flowsActive)} flows that it has may finish until the deadline.`}
      </p>
      <TextField
        label="Deadline (30s, 10m, 2h)"
        name="deadline"
        required
        pattern={DURATION}
        value={request.deadline}
        onSet={(deadline) => set({ deadline })}
      />
      <RadioGroup
        label="Flows that are left at the deadline"
        name="then"
        value={request.then}
        options={[
          ['reset', 'are ended, as the rule’s flow policy says'],
          ['leave', 'stay; only new flows go elsewhere'],
        ]}
        onSet={(then) => set({ then })}
      />
      <TextField
        label="Ends are spread over"
        name="spread"
        required
        disabled={request.then === 'leave'}
        pattern={DURATION}
        value={request.spread}
        onSet={(spread) => set({ spread })}
      />
      {refused && (
        <label class="choice">
          <input
            type="checkbox"
            checked={request.force}
            onChange={(event) => set({ force: event.currentTarget.checked })}
          />
          Drain anyway
        </label>
      )}
    </Dialog>
  );
}

function CancelDrainDialog({ api, backend, onDone, onClose }: Operation) {
  const { pool, address, name, drain } = backend;

  async function cancel(): Promise<void> {
    await api.cancelDrain({ pool, backend: address });
    onDone(`Drain of ${name} is cancelled`);
  }

  return (
    <Dialog
      title={`Cancel the drain of ${name}?`}
      confirm="Cancel the drain"
      onSubmit={cancel}
      onClose={onClose}
    >
      <p>It gets new flows again, if its probe and its admin state allow it.</p>
      {drain !== undefined && <p>Now: {drainText(drain, api.now())}</p>}
    </Dialog>
  );
}

function AdminStateDialog({ api, backend, onDone, onClose }: Operation) {
  const { pool, address, name } = backend;
  const [adminState, setAdminState] = useState<Request<'setAdminState'>['adminState']>(backend.adminState);

  async function change(): Promise<void> {
    await api.setAdminState({ pool, backend: address, adminState });
    onDone(`Admin state of ${name} is now ${adminState === 'configured' ? 'as configured' : adminState}`);
  }

  return (
    <Dialog
      title={`Admin state of ${name} in pool ${pool}`}
      confirm="Set it"
      onSubmit={change}
      onClose={onClose}
    >
      <p>{`Now ${backend.adminState}, ${originText(backend)}. A change acts on the next packet.`}</p>
      <RadioGroup
        label="Admin state"
        name="adminState"
        value={adminState}
        options={[
          ['none', 'none: follow the probe'],
          ['up', 'up: take new flows whatever the probe says'],
          ['down', 'down: take no new flows; the flow policy decides about those that it has'],
          ['configured', 'configured: what the configuration says'],
        ]}
        onSet={setAdminState}
      />
    </Dialog>
  );
}
