import assert from 'node:assert/strict';
import { mkdtempSync } from 'node:fs';
import { mkdir, readFile, rename, rm, symlink, writeFile } from 'node:fs/promises';
import { createServer, type Server } from 'node:http';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, afterEach, before, beforeEach, describe, test } from 'node:test';
import type { BackendPoolView, BackendView, ReloadOutcome, StatusView } from '../../src/api/views.js';
import { eventually } from '../support/deadline.js';
import type { LabOptions } from '../support/lab-config.js';
import { logEvents } from '../support/log-lines.js';
import { NVA_PROBE as PROBE, useService } from '../support/service.js';
import { TcpClient } from '../support/tcp-client.js';

const OTHER_HEALTH_PORT = 9001;

void describe('taking a changed configuration over, live', () => {
  const folder = mkdtempSync(join(tmpdir(), 'haports-test-'));
  const flowLog = join(folder, 'flow.log');
  const service = useService({ ports: [8000, 8009], probe: PROBE, top: { flowLog: { file: flowLog } } });
  const { host, nvas } = service;

  after(() => rm(folder, { recursive: true, force: true }));

  type Wishes = Partial<LabOptions>;

  const status = (): Promise<StatusView> => service.process.get('/v1/status');

  const backends = async (): Promise<readonly BackendView[]> =>
    (await service.process.get<BackendPoolView>('/v1/pools/nvas')).backends;

  const backend = async (address: string): Promise<BackendView> => {
    const found = (await backends()).find((member) => member.address === address);
    assert.ok(found !== undefined, `no backend ${address}`);
    return found;
  };

  const backendsBecome = (total: number): Promise<unknown> =>
    eventually(
      async () => (await status()).backends.total === total,
      10_000,
      `${total} backends to be configured:\n${service.process.log()}`,
    );

  test('SIGHUP takes the file over and opens the flow log anew; a broken file changes nothing', async () => {
    const balancer = service.process;
    const rewrite = (wishes: Wishes = {}): Promise<string> => balancer.write(service.configuration(wishes));
    assert.equal((await status()).configuration.lastReload, undefined);
    const { client, backend: at } = await service.tcp();
    await eventually(
      async () => (await readFile(flowLog, 'utf8')).includes('"nvas/'),
      5000,
      'the flow in the log',
    );

    await rename(flowLog, `${flowLog}.1`);
    await rewrite({ backends: 2 });
    balancer.child.kill('SIGHUP');
    await backendsBecome(2);
    const { lastReload } = (await status()).configuration;
    assert.equal(lastReload?.ok, true);
    assert.match(JSON.stringify(logEvents(balancer.log(), 'reloaded')), /SIGHUP/);
    await service.tcp(1);
    const lines = await eventually(
      async () => {
        const text = await readFile(flowLog, 'utf8');
        return text.includes(host(101)) && text.trim().split('\n');
      },
      5000,
      'the next flow in the new file',
    );
    assert.match(lines[0]!, /"type":"config"/, 'each file can be read on its own');

    await rewrite({ top: { colour: 'blue', shutdown: { deadline: 'never' } } });
    balancer.child.kill('SIGHUP');
    const log = balancer.log;
    const [failed] = await eventually(
      () => {
        const found = logEvents(log(), 'reload-failed');
        return found.length > 0 && found;
      },
      5000,
      'the refusal in the log',
    );
    for (const finding of ['LB_CONFIG_INVALID', 'LB_UNKNOWN_KEY', 'colour', 'shutdown.deadline']) {
      assert.ok(JSON.stringify(failed).includes(finding), `${finding} in ${JSON.stringify(failed)}`);
    }
    assert.equal((await status()).configuration.lastReload?.ok, false);
    assert.equal((await status()).backends.total, 2);

    await rewrite();
    balancer.child.kill('SIGHUP');
    await backendsBecome(3);
    assert.equal((await status()).configuration.lastReload?.ok, true);
    if (at !== 'nva-3') assert.equal(await client.backend(), at);
  });

  void describe('under a backend that has failed', () => {
    const answers = new Map<string, 'well' | 'sick' | 'silent'>();
    const health: Server[] = [];
    const second = host(12);
    /** Backends that took a new flow. */
    let reached: Set<string>;
    const newcomers = { going: true };
    let asking: Promise<void>;
    /** Newcomers that have been answered. */
    let asked = 0;

    const reload = async (wishes: Wishes = {}): Promise<ReloadOutcome> => {
      const answer = await service.process.reload(service.configuration(wishes));
      assert.equal(answer.status, 200, JSON.stringify(answer.body));
      return answer.body as ReloadOutcome;
    };
    const isServing = (address: string) => async (): Promise<boolean> => (await backend(address)).serving;
    const isDown = async (): Promise<boolean> => (await backend(second)).health === 'down';
    const member = (number: number, more: object = {}) => ({
      ...{ name: `nva-${number}`, address: host(10 + number) },
      ...more,
    });

    /** Nothing of this may bring the second backend back. */
    const staysOut = async (what: string): Promise<void> => {
      const { serving, hashShare } = await backend(second);
      assert.deepEqual({ serving, hashShare }, { serving: false, hashShare: 0 }, what);
      assert.ok(!reached.has('nva-2'), `${what}: a new flow reached the backend that has failed`);
    };

    before(async () => {
      for (const number of [1, 2, 3]) {
        const address = host(10 + number);
        answers.set(address, 'well');
        const server = createServer((request, response) => {
          request.resume();
          const answer = answers.get(address);
          if (answer !== 'silent') response.writeHead(answer === 'well' ? 200 : 503).end();
        });
        await new Promise<void>((resolve) => server.listen(OTHER_HEALTH_PORT, address, resolve));
        health.push(server);
      }
    });

    after(() => {
      for (const server of health) {
        server.close();
        server.closeAllConnections();
      }
    });

    beforeEach(async () => {
      await reload();
      await nvas[1]!.setHealth('sick');
      await eventually(isDown, 5000, 'the second backend to fail');
      reached = new Set();
      newcomers.going = true;
      asking = (async () => {
        for (let index = 0; newcomers.going; index++) {
          const client = await TcpClient.connect(service.target(index));
          reached.add(await client.backend());
          client.destroy();
          asked = index + 1;
        }
      })();
    });

    afterEach(async () => {
      newcomers.going = false;
      await asking;
      await nvas[1]!.setHealth('well');
    });

    test('what a probe knows is kept where the question is the same, whatever else is edited', async () => {
      const edits: readonly [string, Wishes][] = [
        ['thresholds', { probe: { ...PROBE, threshold: { up: 2, down: 40 } } }],
        ['interval and timeout', { probe: { ...PROBE, interval: '300ms', timeout: '250ms' } }],
        ['the name of the probe', { probe: PROBE }],
        ['the order of backends', { pool: { backends: [member(3), member(2), member(1)] } }],
        ['the place of the failed one', { pool: { backends: [member(2), member(1), member(3)] } }],
        ['one that goes before it', { pool: { backends: [member(2), member(3)] } }],
        ['one that comes before it', { pool: { backends: [member(1), member(2), member(3)] } }],
        ['the name of a backend', { pool: { backends: [member(1), member(2, { name: 'two' }), member(3)] } }],
        ['weight', { pool: { backends: [member(1), member(2, { weight: 9 }), member(3)] } }],
        ['the name of the rule', { rule: { name: 'all-ports' } }],
        ['flow policy', { rule: { flowPolicy: 'aws-gwlb' } }],
      ];
      for (const [what, wishes] of edits) {
        const renamed = what === 'the name of the probe';
        const named = { probes: [{ name: 'other', ...PROBE }] };
        const { report } = await reload(renamed ? { rule: { probe: 'other' }, top: named } : wishes);
        assert.equal(report.lost.probeTargets, what.startsWith('one that goes') ? 1 : 0, what);
        assert.equal((await backend(second)).health, 'down', what);
        await staysOut(what);
      }
      await nvas[1]!.setHealth('well');
      await eventually(isServing(second), 10_000, 'the backend to come back after all those reloads');
    });

    test('another question is asked anew, and nobody is switched on without an answer', async () => {
      const other = { ...PROBE, port: OTHER_HEALTH_PORT };
      answers.set(second, 'sick');
      const { report } = await reload({ probe: other });
      assert.equal(report.lost.probeTargets, 3);
      await eventually(isDown, 5000, 'the verdict of the new port');
      await staysOut('another port');
      answers.set(second, 'silent');
      await reload({ probe: { ...other, path: '/' } });
      await staysOut('another path that is not answered');
      answers.set(second, 'well');
      reached.delete('nva-2');
      await eventually(isServing(second), 15_000, 'the backend to come back by the new question');
      await eventually(() => reached.has('nva-2'), 5000, 'new flows on it');

      // The old question again, under which it is still sick.
      await reload();
      await eventually(isDown, 5000, 'the old verdict');
      // One that is under way may have been placed before.
      const before = asked;
      await eventually(() => asked > before, 5000, 'the newcomer under way to be answered');
      reached.clear();
      await eventually(() => reached.size === 2, 5000, 'new flows on the others');
      await staysOut('the old port');
      await nvas[1]!.setHealth('well');
      await eventually(isServing(second), 5000, 'the backend to come back by the old question');
    });

    test('a backend that goes and comes again is probed anew', async () => {
      await reload({ pool: { backends: [member(1), member(3)] } });
      await reload();
      await staysOut('comes again sick');
      await reload({ pool: { backends: [member(1), member(3)] } });
      await nvas[1]!.setHealth('well');
      await reload();
      await eventually(isServing(second), 5000, 'the backend to serve');
      await eventually(() => reached.has('nva-2'), 5000, 'new flows on it');
    });

    test('the first comes back in its own right when it fails under a probe that is edited', async () => {
      await reload({ probe: { ...PROBE, threshold: 49 } });
      await nvas[0]!.setHealth('sick');
      await eventually(async () => (await backend(host(11))).health === 'down', 5000, 'the first to fail');
      await nvas[1]!.setHealth('well');
      await eventually(isServing(second), 5000, 'the second to serve');
      await reload({
        probe: { ...PROBE, threshold: 48 },
        pool: { backends: [member(3), member(2), member(1)] },
      });
      const serving = (await backends()).map(({ name, serving: now }) => [name, now]);
      assert.deepEqual(Object.fromEntries(serving), { 'nva-1': false, 'nva-2': true, 'nva-3': true });
      await nvas[0]!.setHealth('well');
      await eventually(isServing(host(11)), 5000, 'the first to serve');
    });
  });

  test('renaming a frontend, a rule and a backend keeps every flow', async () => {
    const balancer = service.process;
    await eventually(async () => (await status()).traffic.flowsActive === 0, 5000, 'earlier flows to end');
    const { tcp, udp } = await service.openFlows(30);
    const renamed = {
      ...service.configuration({
        rule: { name: 'everything', frontend: 'core' },
        pool: { backends: [1, 2, 3].map((number) => ({ name: `fw-${number}`, address: host(10 + number) })) },
      }),
      frontends: [{ name: 'core', address: host(1) }],
    };
    const answer = await balancer.reload(renamed);
    assert.equal(answer.status, 200, JSON.stringify(answer.body));
    const { report } = answer.body as ReloadOutcome;
    assert.deepEqual(report.kept.flows, 60);
    assert.deepEqual(
      { ...report.lost, overrides: [] },
      { flows: 0, probeTargets: 0, overrides: [], listeners: 0 },
    );
    assert.equal(report.plan.movedShare, 0);
    for (const { client } of tcp) assert.equal(client.ending, 'open');
    for (const { client, backend: at } of [...tcp, ...udp]) assert.equal(await client.backend(), at);
  });

  test('a watched file is taken over when a link is swapped, when it is replaced, and when it is written in place', async () => {
    const balancer = await service.start({}, { args: ['--watch'] });
    const path = balancer.configPath;
    const { client, backend: at } = await service.tcp();
    const written = (wishes: Wishes = {}): string =>
      JSON.stringify(balancer.withSocket(service.configuration(wishes)));
    // As Kubernetes mounts a ConfigMap: config.json -> ..data/config.json, ..data -> ..version.
    const publish = async (version: string, content: string): Promise<void> => {
      await mkdir(balancer.file(version));
      await writeFile(join(balancer.file(version), 'config.json'), content);
      await symlink(version, balancer.file('..data_tmp'));
      await rename(balancer.file('..data_tmp'), balancer.file('..data'));
    };
    await publish('..1', written());
    await symlink('..data/config.json', `${path}.link`);
    await rename(`${path}.link`, path);

    await publish('..2', written({ backends: 2 }));
    await backendsBecome(2);
    await publish('..3', '{ "frontends": [');
    await eventually(
      () => logEvents(balancer.log(), 'reload-failed').some(({ cause }) => cause === 'file watch'),
      10_000,
      'the broken file to be refused',
    );
    assert.equal((await status()).backends.total, 2);
    assert.equal((await status()).configuration.lastReload?.ok, false);
    await publish('..4', written());
    await backendsBecome(3);

    await writeFile(`${path}.new`, written({ backends: 1 }));
    await rename(`${path}.new`, path);
    await backendsBecome(1);
    await writeFile(path, written({ backends: 2 }));
    await backendsBecome(2);
    assert.equal((await status()).configuration.lastReload?.ok, true);
    assert.equal(client.ending, 'open');
    assert.equal(await client.backend(), at, 'Azure: a backend that is removed keeps its TCP flows');
  });
});
