import assert from 'node:assert/strict';
import type { ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { fileURLToPath } from 'node:url';
import { after, before, describe, test, type TestContext } from 'node:test';
import type { BackendPoolView } from '../../src/api/views.js';
import { adminApi } from '../support/admin-api.js';
import type { CapturedHaports } from '../support/capture-lab.js';
import { eventually, within } from '../support/deadline.js';
import type { HoldWork, NewFlow, StreamWork } from '../support/failover-client-main.js';
import { startInLab } from '../support/lab-haports.js';
import { logEvents } from '../support/log-lines.js';
import { whyNoNamespaces, type NamespaceLab } from '../support/namespaces.js';
import {
  BACKEND_NAMES,
  LAB_BACKENDS,
  LAB_CLIENTS,
  LAB_FRONTENDS,
  openRouterLab,
} from '../support/router-lab.js';

/*
 * How long new flows still reach a backend after it was found down, with 10,000 flows in the kernel's table and 1,000 new
 * ones a second. The backend itself goes on serving, so that each flow that still reaches it is seen.
 */

const BACKEND_MAIN = fileURLToPath(new URL('../support/failover-backend-main.js', import.meta.url));
const CLIENT_MAIN = fileURLToPath(new URL('../support/failover-client-main.js', import.meta.url));
const HOST = LAB_FRONTENDS[4][0];
const [PORT, PROBE_PORT] = [8080, 9000];
const LIMIT_MS = 100;
const GOES = 8;
const STREAM_SECONDS = 3;
/** The stream has come to its rate by then. */
const CHANGE_AFTER_MS = 1200;

const CONFIG = {
  dataPlane: { kind: 'kernel', kernel: { mode: 'nat', manageSysctls: true, onStop: 'remove' } },
  frontends: [{ name: 'hub', address: HOST }],
  probes: [{ name: 'alive', protocol: 'http', port: PROBE_PORT, path: '/', interval: '250ms', threshold: 3 }],
  backendPools: [
    { name: 'nvas', backends: LAB_BACKENDS[4].map((address, index) => ({ name: `b${index + 1}`, address })) },
  ],
  rules: [{ name: 'all', frontend: 'hub', backendPool: 'nvas', probe: 'alive', haPorts: true }],
  logging: { format: 'json' },
};

describe('new flows after a verdict, with 10,000 flows in the kernel', { skip: whyNoNamespaces() }, () => {
  let lab: NamespaceLab;
  let haports: CapturedHaports | undefined;
  const backends = new Map<string, ChildProcess>();

  before(async () => {
    lab = await openRouterLab();
    for (const name of BACKEND_NAMES) backends.set(name, await startBackend(lab, name));
    haports = await startInLab(lab, CONFIG);
    await allServe();
    await holdFlows(lab, { tcp: 5000, udp: 5000 });
    const count = Number(await lab.must('lb', 'conntrack', ['-C']));
    assert.ok(count >= 10_000, `${count} flows in the table`);
  });
  after(async () => {
    await haports?.kill();
    await lab.close();
  });

  async function allServe(): Promise<void> {
    await eventually(
      async () => (await haports?.get<BackendPoolView>('/v1/pools/nvas'))?.serving === BACKEND_NAMES.length,
      10_000,
      'three backends to serve',
    );
  }

  async function setAdminState(backend: string, adminState: 'down' | 'none'): Promise<void> {
    const path = `/v1/backends/nvas/${backend}/admin-state`;
    const { status, body } = await adminApi(haports?.socket ?? '', 'PUT', path, { adminState });
    assert.equal(status, 204, JSON.stringify(body));
  }

  /** The best of some goes: what a busy machine adds is not the balancer's. */
  async function bestOf(t: TestContext, dead: string, go: () => Promise<Go>): Promise<void> {
    const lasts: number[] = [];
    while (lasts.length < GOES && !lasts.some((lastMs) => lastMs <= LIMIT_MS)) {
      const { flows, verdictAtMs } = await go();
      const { lastMs, figures } = figuresOf(flows, dead, verdictAtMs);
      t.diagnostic(figures);
      lasts.push(lastMs);
      await allServe();
    }
    assert.ok(Math.min(...lasts) <= LIMIT_MS, `${lasts.join(' ms, ')} ms`);
  }

  test(`none comes to the dead ${LIMIT_MS} ms after a probe's verdict`, async (t) => {
    await bestOf(t, 'b2', async () => {
      const stream = startStream(lab);
      await pause(CHANGE_AFTER_MS);
      await say(backends.get('b2'), '503');
      const flows = await stream;
      const line = logEvents(haports?.log() ?? '', 'health-changed').findLast(({ to }) => to === 'down');
      assert.equal(line?.['backendName'], 'b2');
      await say(backends.get('b2'), '200');
      return { flows, verdictAtMs: Number(line['atMs']) };
    });
  });

  test(`none comes to the dead ${LIMIT_MS} ms after an administrator's word`, async (t) => {
    await bestOf(t, 'b3', async () => {
      const stream = startStream(lab);
      await pause(CHANGE_AFTER_MS);
      const verdictAtMs = Date.now();
      await setAdminState('b3', 'down');
      const flows = await stream;
      await setAdminState('b3', 'none');
      return { flows, verdictAtMs };
    });
  });
});

/** One change in the middle of a stream of new flows. */
interface Go {
  readonly flows: readonly NewFlow[];
  readonly verdictAtMs: number;
}

function figuresOf(
  flows: readonly NewFlow[],
  dead: string,
  verdictAtMs: number,
): { readonly lastMs: number; readonly figures: string } {
  const before = flows.filter(([atMs]) => atMs < verdictAtMs);
  const after = flows.filter(([atMs]) => atMs >= verdictAtMs);
  const misplaced = after.filter(([, answer]) => answer === dead).map(([atMs]) => atMs - verdictAtMs);
  const unanswered = flows.filter(([, answer]) => !BACKEND_NAMES.some((name) => name === answer));
  const lastMs = Math.max(0, ...misplaced);
  const figures =
    `${flows.length} new flows, ${after.length} after the verdict; ${misplaced.length} misplaced, ` +
    `the last ${lastMs} ms after it; ${unanswered.length} unanswered`;
  assert.ok(
    before.some(([, answer]) => answer === dead),
    `nobody reached ${dead} before: ${figures}`,
  );
  assert.ok(after.length > 500, figures);
  // One in 81 finds nobody in four tries while the table still names the dead one, and comes again a second later.
  assert.ok(unanswered.length <= flows.length / 100, `${figures}: ${JSON.stringify(unanswered.slice(0, 5))}`);
  return { lastMs, figures };
}

async function startBackend(lab: NamespaceLab, name: string): Promise<ChildProcess> {
  const args = [BACKEND_MAIN, name, String(PORT), String(PROBE_PORT)];
  const child = lab.spawn(name, process.execPath, args, { stdio: ['pipe', 'pipe', 'inherit'] });
  assert.ok(child.stdout);
  await within(once(child.stdout, 'data'), 20_000, `backend ${name} to listen`);
  return child;
}

async function say(backend: ChildProcess | undefined, status: string): Promise<void> {
  assert.ok(backend?.stdout);
  const heard = once(backend.stdout, 'data');
  backend.stdin?.write(`${status}\n`);
  await within(heard, 5000, `the backend to answer probes with ${status}`);
}

async function holdFlows(
  lab: NamespaceLab,
  counts: { readonly tcp: number; readonly udp: number },
): Promise<void> {
  const work: HoldWork = { kind: 'hold', host: HOST, port: PORT, sources: LAB_CLIENTS[4], ...counts };
  const child = lab.spawn('client', process.execPath, [CLIENT_MAIN, JSON.stringify(work)], {
    stdio: ['ignore', 'pipe', 'inherit'],
  });
  assert.ok(child.stdout);
  await within(once(child.stdout, 'data'), 60_000, 'flows to be open');
}

async function startStream(lab: NamespaceLab): Promise<readonly NewFlow[]> {
  const work: StreamWork = {
    kind: 'stream',
    host: HOST,
    port: PORT,
    perSecond: 1000,
    seconds: STREAM_SECONDS,
  };
  const output = await lab.must('client', process.execPath, [CLIENT_MAIN, JSON.stringify(work)], {
    timeoutMs: 30_000,
  });
  return JSON.parse(output) as readonly NewFlow[];
}

async function pause(ms: number): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, ms));
}
