import type { FeedEvent, StatusView } from '../../api/views.js';
import { bitRate, clock, count, plural, share, si, span } from '../../api/words.js';
import { NOTHING_KNOWN, createApi, followProcess, type ApiError, type Live } from './api.js';
import { Backends } from './backends.js';
import { Charts } from './charts.js';
import { followEvents, type EventFollower, type StreamState } from './event-stream.js';
import { Explain, type AskedTuple } from './explain.js';
import { Flows } from './flows.js';
import { Shape } from './health.js';
import {
  h,
  render,
  useCallback,
  useEffect,
  useMemo,
  useRef,
  useState,
  type Child,
} from 'htm/preact/standalone';
import { Picture } from './picture.js';
import { Button, Dialog, Select, TextField } from './widgets.js';

/** Events that are remembered; the log has the rest. */
const EVENTS_KEPT = 300;
/** A page hidden for this long closes the event stream. */
const HIDDEN_FOR_MS = 30_000;

type Panel = readonly [id: string, title: string, content: Child, hint?: string];

/** Mounted once, for as long as the tab shows the page. */
function App() {
  const [live, setLive] = useState(NOTHING_KNOWN);
  const [events, setEvents] = useState<readonly FeedEvent[]>([]);
  const [stream, setStream] = useState<StreamState>({ kind: 'connecting' });
  const [lock, setLock] = useState<{ readonly refused: boolean }>();
  const [asked, setAsked] = useState<AskedTuple>();
  const [route, setRoute] = useState<readonly string[]>([]);
  const [said, setSaid] = useState('');
  const api = useMemo(() => createApi((refused) => setLock({ refused })), []);
  const pollNow = useRef((): void => undefined);
  const follower = useRef<EventFollower | undefined>(undefined);
  const retry = useCallback(() => follower.current?.retry(), []);

  useEffect(() => {
    pollNow.current = followProcess(api, setLive);
    follower.current = followEvents({
      open: api.stream,
      onEvent: (event) =>
        setEvents((known) =>
          known.some(({ id }) => id === event.id) ? known : [event, ...known].slice(0, EVENTS_KEPT),
        ),
      onState: setStream,
      signal: new AbortController().signal,
    });
    let timer: ReturnType<typeof setTimeout> | undefined;
    document.addEventListener('visibilitychange', () => {
      clearTimeout(timer);
      if (document.hidden) timer = setTimeout(() => follower.current?.rest(), HIDDEN_FOR_MS);
      else retry();
    });
  }, []);

  const { status, topology } = live;
  // Announced once, when it happens, to those who cannot see the bar.
  const drained = (status?.drains ?? [])
    .filter(({ phase }) => phase === 'done')
    .map(({ backendName }) => backendName)
    .join(', ');
  useEffect(() => {
    if (drained !== '') setSaid(`Drained: ${drained}`);
  }, [drained]);

  // Another process counts its events from one again.
  const started = status?.startedAtMs;
  const before = useRef(started);
  useEffect(() => {
    if (before.current !== undefined && started !== before.current) {
      setEvents([]);
      follower.current?.restart();
    }
    before.current = started ?? before.current;
  }, [started]);

  const unlock = useCallback((token: string) => {
    api.unlock(token);
    setLock(undefined);
    pollNow.current();
    retry();
  }, []);
  const done = useCallback((text: string) => {
    setSaid(text);
    pollNow.current();
  }, []);
  const explain = useCallback((tuple: AskedTuple) => {
    setAsked({ ...tuple });
    const section = document.getElementById('explain');
    section?.scrollIntoView({ block: 'start' });
    section?.focus({ preventScroll: true });
  }, []);

  const error = live.statusError ?? live.topologyError;
  const panels: Panel[] = [];
  if (status !== undefined && topology !== undefined) {
    const { rules, pools } = topology;
    const picture = <Picture {...topology} kernel={status.kernel} route={route} />;
    panels.push(
      ['figures', 'Now', <Figures status={status} />],
      ['picture', 'Traffic path', picture, 'The more traffic, the thicker the line. Dotted: no new flows.'],
      ['explain', 'Where does this flow go?', <Explain api={api} asked={asked} onRoute={setRoute} />],
      ['backends', 'Backends', <Backends api={api} pools={pools} onDone={done} />],
      ['charts', 'Last five minutes', <Charts series={live.series} />],
      ['flows', 'Flows', <Flows api={api} rules={rules} pools={pools} onExplain={explain} />],
      ['events', 'Events', <Events events={events} stream={stream} onRetry={retry} />],
    );
  }
  return (
    <div class="page">
      <header class="top">
        <div class="title">
          <h1>haports</h1>
          <div role="status">
            <Verdict status={status} error={error} freshAtMs={live.freshAtMs} />
          </div>
        </div>
        <ProcessFacts status={status} nowMs={api.now()} />
      </header>
      <main id="main" tabindex={-1} class={error === undefined ? '' : 'stale'}>
        {panels.length === 0 && <p class="boot">{error === undefined ? 'Loading …' : 'No data yet.'}</p>}
        {panels.map(([id, title, content, hint]) => (
          <section key={id} id={id} class="panel" tabindex={-1} aria-labelledby={`${id}-title`}>
            <h2 id={`${id}-title`}>{title}</h2>
            {hint !== undefined && <p class="hint">{hint}</p>}
            {content}
          </section>
        ))}
      </main>
      <p class="hidden" role="status" aria-live="polite">
        {said}
      </p>
      {lock !== undefined && <TokenDialog refused={lock.refused} onToken={unlock} />}
    </div>
  );
}

/** Whether all is well. */
function Verdict({ status, freshAtMs, error }: Pick<Live, 'status' | 'freshAtMs'> & { error?: ApiError }) {
  if (error !== undefined) {
    const since = freshAtMs === undefined ? '' : `; what you see is from ${clock(freshAtMs)}`;
    return <p class="verdict bad">{marked('bad', `${error.message}${since}`)}</p>;
  }
  if (status === undefined) return <p class="verdict">…</p>;
  if (status.problems.length === 0) return <p class="verdict good">{marked('good', 'No problems')}</p>;
  return (
    <ul class="verdict bad" aria-label="Problems">
      {status.problems.map((text) => (
        <li key={text}>{marked('bad', text)}</li>
      ))}
    </ul>
  );
}

function marked(tone: 'good' | 'bad', text: string): Child {
  return [<Shape key="shape" of={tone} />, text];
}

function ProcessFacts({ status, nowMs }: { status?: StatusView; nowMs: number }) {
  if (status === undefined) return <p class="facts"> </p>;
  const { version, pid, startedAtMs, workers, workersLost, configuration, revision } = status;
  const { source, digest, loadedAtMs, lastReload } = configuration;
  const lost = workersLost > 0 ? `, ${count(workersLost)} lost` : '';
  const facts = [
    version,
    `pid ${pid}`,
    `up ${span(nowMs - startedAtMs)}`,
    `${workers === 0 ? 'no workers' : plural(workers, 'worker')}${lost}`,
    `${source} (${digest.slice(0, 12)}), loaded ${clock(loadedAtMs)}`,
    `revision ${count(revision)}`,
  ];
  return (
    <div>
      <p class="facts">{facts.join(' · ')}</p>
      {lastReload !== undefined && (
        <p class={lastReload.ok ? 'facts' : 'facts failure'}>
          {`Last reload ${clock(lastReload.atMs)}: ${lastReload.ok ? 'done' : 'failed'}, ${lastReload.message}`}
        </p>
      )}
    </div>
  );
}

/** The figures of the whole process. */
function Figures({ status }: { status: StatusView }) {
  const { table, traffic, backends, drains } = status;
  const use = ({ used, limit }: { used: number; limit: number }): readonly [string, string] => [
    count(used),
    `of ${count(limit)} (${share(used / Math.max(1, limit))})`,
  ];
  const tiles: readonly (readonly [name: string, value: string, more: string])[] = [
    [
      'Backends serving',
      `${count(backends.serving)} / ${count(backends.total)}`,
      `${count(drains.length)} draining`,
    ],
    ['TCP flows', ...use(table.tcp)],
    ['UDP flows', ...use(table.udp)],
    // The kernel plane does not count them apart.
    ...(table.embryonic.limit === 0 ? [] : [['Opening flows', ...use(table.embryonic)] as const]),
    ['New flows', `${si(traffic.newFlowsPerSecond)} /s`, `${count(traffic.flowsOpened)} so far`],
    [
      'To backends',
      bitRate(traffic.bitsToBackendPerSecond),
      `to clients ${bitRate(traffic.bitsToClientPerSecond)}`,
    ],
    ['Connect failures', count(traffic.connectFailures), `${count(traffic.resets)} resets`],
    listenerTile(status),
  ];
  return (
    <dl class="tiles">
      {tiles.map(([name, value, more]) => (
        <div key={name}>
          <dt>{name}</dt>
          <dd>
            {value}
            <small>{more}</small>
          </dd>
        </div>
      ))}
    </dl>
  );
}

/** What the numbers of listeners count depends on how packets come in. */
function listenerTile({ listeners: { tcp, udp }, kernel }: StatusView): readonly [string, string, string] {
  const parts = `TCP ${count(tcp)}, UDP ${count(udp)}`;
  if (kernel?.mode.startsWith('kernel')) return ['Frontends', count(Math.max(tcp, udp)), parts];
  return [kernel === undefined ? 'Listeners' : 'Capture sockets', count(tcp + udp), parts];
}

const LEVELS = ['debug', 'info', 'warn', 'error'] as const;

/** What happened, newest first, and whether the stream is live. */
function Events(props: { events: readonly FeedEvent[]; stream: StreamState; onRetry: () => void }) {
  const { events, stream, onRetry } = props;
  const [least, setLeast] = useState<FeedEvent['level']>('info');
  const shown = events.filter(({ level }) => LEVELS.indexOf(level) >= LEVELS.indexOf(least));
  return (
    <div>
      <div class="fields">
        <p class={`stream ${stream.kind}`} role="status">
          {marked(stream.kind === 'live' ? 'good' : 'bad', streamText(stream))}
        </p>
        {stream.kind === 'cut' && <Button text="Try now" onClick={onRetry} />}
        <Select label="At least" value={least} options={LEVELS} onSet={setLeast} />
      </div>
      <div class="scroll events" role="region" aria-label="Events, newest first" tabindex={0}>
        <ol>
          {shown.map(({ id, level, atMs, type, message }) => (
            <li key={id} class={level}>
              <time>{clock(atMs)}</time>
              <span class="level">{level}</span>
              <span>
                <strong>{type}</strong> {message}
              </span>
            </li>
          ))}
        </ol>
        {shown.length === 0 && <p class="empty">No events yet.</p>}
      </div>
    </div>
  );
}

function streamText(stream: StreamState): string {
  switch (stream.kind) {
    case 'live':
      return 'Events are live';
    case 'resting':
      return 'Events are paused while the page is hidden';
    case 'connecting':
      return 'Connecting to the events …';
    case 'cut':
      return `Event stream cut (${stream.why}); reconnecting, attempt ${count(stream.attempts)} …`;
  }
}

/** Asks for the bearer token, which is kept for this tab only. `refused`: the last one was wrong. */
function TokenDialog(props: { readonly refused: boolean; readonly onToken: (token: string) => void }) {
  const [token, setToken] = useState('');
  return (
    <Dialog
      title="Token needed"
      confirm="Continue"
      required
      onSubmit={() => Promise.resolve()}
      onClose={() => props.onToken(token.trim())}
    >
      <p>
        {props.refused && 'The token was not accepted. '}
        The admin API wants the token from "admin.token" of the configuration. It is kept until this tab is
        closed.
      </p>
      <TextField label="Token" type="password" required pattern=".*\S.*" value={token} onSet={setToken} />
    </Dialog>
  );
}

const place = document.getElementById('app');
place?.replaceChildren();
if (place !== null) render(<App />, place);
