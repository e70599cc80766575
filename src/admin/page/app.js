import { html, render, useCallback, useEffect, useMemo, useRef, useState } from './htm-preact.js';
import { createApi } from './api.js';
import { Backends } from './backends.js';
import { Charts } from './charts.js';
import { followEvents } from './event-stream.js';
import { Events } from './events.js';
import { Explain } from './explain.js';
import { Flows } from './flows.js';
import { Figures, Head } from './head.js';
import { followProcess } from './live-data.js';
import { Picture } from './picture.js';
import { TokenDialog } from './token-dialog.js';

/** Events that are remembered; the log has the rest. */
const EVENTS_KEPT = 300;
/** A page that nobody has seen for so long lets the event stream go. */
const HIDDEN_FOR_MS = 30_000;

function App() {
  const [live, setLive] = useState({});
  const [events, setEvents] = useState([]);
  const [stream, setStream] = useState({ kind: 'connecting' });
  const [lock, setLock] = useState();
  const [asked, setAsked] = useState();
  const [route, setRoute] = useState([]);
  const [said, setSaid] = useState('');
  const api = useMemo(() => createApi((refused) => setLock({ refused })), []);
  const followers = useRef({});

  useEffect(() => {
    const ending = new AbortController();
    const onEvent = (event) =>
      setEvents((known) =>
        known.some(({ id }) => id === event.id) ? known : [event, ...known].slice(0, EVENTS_KEPT),
      );
    followers.current = {
      process: followProcess(api, setLive),
      events: followEvents({ api, onEvent, onState: setStream, signal: ending.signal }),
    };
    return () => {
      ending.abort();
      followers.current.process.stop();
    };
  }, []);

  useEffect(() => {
    let timer;
    const seen = () => {
      clearTimeout(timer);
      if (document.hidden) timer = setTimeout(() => followers.current.events.rest(), HIDDEN_FOR_MS);
      else followers.current.events.retry();
    };
    document.addEventListener('visibilitychange', seen);
    return () => document.removeEventListener('visibilitychange', seen);
  }, []);

  // Said once, when it happens: whoever cannot see the bar need not ask.
  const drained = (live.status?.drains ?? [])
    .filter(({ phase }) => phase === 'done')
    .map(({ backendName }) => backendName)
    .join(', ');
  useEffect(() => {
    if (drained !== '') setSaid(`Drained: ${drained}`);
  }, [drained]);

  // Another process counts its events from one again.
  const started = live.status?.startedAtMs;
  const before = useRef(started);
  useEffect(() => {
    if (before.current !== undefined && started !== before.current) {
      setEvents([]);
      followers.current.events.restart();
    }
    before.current = started ?? before.current;
  }, [started]);

  const unlock = useCallback((token) => {
    api.unlock(token);
    setLock(undefined);
    followers.current.process.now();
    followers.current.events.retry();
  }, []);
  const done = useCallback((text) => {
    setSaid(text);
    followers.current.process.now();
  }, []);
  const explain = useCallback((tuple) => {
    setAsked({ ...tuple });
    document.getElementById('explain').scrollIntoView({ block: 'start' });
    document.getElementById('explain').focus({ preventScroll: true });
  }, []);

  const { status, frontends, rules, pools } = live;
  const ready = status !== undefined && pools !== undefined;
  const trouble = live.error ?? live.topologyError;
  return html`<div class="page">
    <${Head} status=${status} error=${trouble} freshAtMs=${live.freshAtMs} />
    <main id="main" tabindex="-1" class=${trouble === undefined ? '' : 'stale'}>
      ${
        ready
          ? html`
              <${Section} id="figures" title="Now"><${Figures} status=${status} /><//>
              <${Section}
                id="picture"
                title="Way of the flows"
                hint="A line is as thick as what runs along it; dotted: no new flows."
              >
                <${Picture}
                  frontends=${frontends}
                  rules=${rules}
                  pools=${pools}
                  kernel=${status?.kernel}
                  route=${route}
                />
              <//>
              <${Section} id="explain" title="Where does this flow go?">
                <${Explain} api=${api} asked=${asked} onRoute=${setRoute} />
              <//>
              <${Section} id="backends" title="Backends"
                ><${Backends} api=${api} pools=${pools} onDone=${done}
              /><//>
              <${Section} id="charts" title="Last five minutes"><${Charts} series=${live.series} /><//>
              <${Section} id="flows" title="Flows">
                <${Flows} api=${api} rules=${rules} pools=${pools} onExplain=${explain} />
              <//>
              <${Section} id="events" title="Events">
                <${Events}
                  events=${events}
                  stream=${stream}
                  onRetry=${() => followers.current.events.retry()}
                />
              <//>
            `
          : html`<p class="boot">${trouble === undefined ? 'Loading …' : 'Nothing is known yet.'}</p>`
      }
    </main>
    <p class="hidden" role="status" aria-live="polite">${said}</p>
    ${lock !== undefined && html`<${TokenDialog} refused=${lock.refused} onToken=${unlock} />`}
  </div>`;
}

function Section({ id, title, hint, children }) {
  return html`<section id=${id} class="panel" tabindex="-1" aria-labelledby=${`${id}-title`}>
    <h2 id=${`${id}-title`}>${title}</h2>
    ${hint !== undefined && html`<p class="hint">${hint}</p>`} ${children}
  </section>`;
}

const place = document.getElementById('app');
place.replaceChildren();
render(html`<${App} />`, place);
