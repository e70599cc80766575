import assert from 'node:assert/strict';
import { before, describe, test } from 'node:test';
import type { DoctorReport } from '../../src/doctor/checks.js';
import { ConfigFile } from '../support/config-file.js';
import { MAIN } from '../support/haports-process.js';
import { serveFrontends } from '../support/kernel-lab.js';
import { useLab, whyNoNamespaces } from '../support/lab.js';
import {
  ARM,
  BACKENDS,
  BALANCER,
  CLIENTS,
  configurationFor,
  FAMILIES,
  FRONTEND,
  HUB,
  hub,
} from '../support/topologies.js';

const PORT = 7000;

function configuration(kernel: object, floatingIp: boolean, backends: readonly string[] = BACKENDS) {
  return configurationFor(HUB, {
    families: FAMILIES,
    backends,
    dataPlane: { kind: 'kernel', kernel },
    probe: { protocol: 'tcp', port: PORT, interval: '5s', threshold: 2 },
    rule: { floatingIp },
  });
}

describe('haports doctor', { skip: whyNoNamespaces() }, () => {
  const lab = useLab(hub('direct'));
  const { lb, b1, router } = lab.hosts;
  before(() => Promise.all(BACKENDS.map((name) => serveFrontends(lab.host(name), [PORT]))));

  async function doctor(config: object, ...args: readonly string[]) {
    const file = await ConfigFile.write(config);
    try {
      const command = [process.execPath, MAIN, 'doctor', '-c', file.path, '--json', ...args];
      const { code, stdout, stderr } = await lb.run(command);
      assert.notEqual(stdout, '', stderr);
      return { ...(JSON.parse(stdout) as DoctorReport), code };
    } finally {
      await file.remove();
    }
  }

  function problems({ sections }: DoctorReport): string[] {
    return sections.flatMap(({ title, findings }) =>
      findings
        .filter(({ level }) => level === 'problem')
        .map(({ text }) => `${title.split(',')[0]}: ${text}`),
    );
  }

  async function assertCleanedUp(): Promise<void> {
    for (const family of ['-4', '-6']) {
      assert.doesNotMatch(await lb.must(`ip ${family} rule`), /^679:/m);
      assert.equal(await lb.must(`ip -N ${family} route show table all proto 104`), '');
    }
    assert.doesNotMatch(await lb.ip('address'), /192\.0\.2\.254|2001:db8/);
  }

  for (const mode of ['floating-l2', 'floating-routed']) {
    test(`finds nothing wrong where nothing is, ${mode}, and leaves nothing behind`, async () => {
      const report = await doctor(configuration({ mode, interface: ARM }, true));
      assert.deepEqual(problems(report), []);
      assert.equal(report.code, 0);
      const works = report.sections
        .flatMap(({ findings }) => findings)
        .filter(({ text }) => text.includes('floating IP works'));
      assert.equal(works.length, 2 * BACKENDS.length);
      await assertCleanedUp();
    });
  }

  test('tells a backend without the alias from one that is not there', async () => {
    await b1.ip(`address del ${FRONTEND[4]}/32 dev lo`);
    try {
      const names = ['b1', 'b3', 'b4'];
      const report = await doctor(configuration({ mode: 'floating-l2', interface: ARM }, true, names));
      assert.equal(report.code, 1);
      assert.deepEqual(
        problems(report).map((text) => text.replace(/ \(.*/, '')),
        [
          `Backend v4/b1: It is alive, but does not answer as ${FRONTEND[4]}:${PORT}`,
          `Backend v4/b4: No answer from 10.2.0.14:${PORT}`,
          `Backend v4/b4: No host on ${ARM} has its address`,
          `Backend v6/b4: No answer from [fd02::14]:${PORT}`,
          `Backend v6/b4: No host on ${ARM} has its address`,
        ],
      );
      await assertCleanedUp();
    } finally {
      await b1.address('lo', `${FRONTEND[4]}/32`);
    }
  });

  test('names settings that are wrong, and an interface that is not there', async () => {
    const config = configuration({ mode: 'floating-routed' }, true);
    await lb.sysctl('net.ipv4.ip_forward', 0);
    try {
      assert.match(
        problems(await doctor(config, '--no-paths')).join('\n'),
        /net\.ipv4\.ip_forward is 0, must be 1/,
      );
    } finally {
      await lb.sysctl('net.ipv4.ip_forward', 1);
      await lb.sysctl('net.ipv4.conf.all.send_redirects', 0);
    }
    const missing = await doctor(
      configuration({ mode: 'floating-l2', interface: 'eth9' }, true),
      '--no-paths',
    );
    assert.match(problems(missing).join('\n'), /Interface eth9 does not exist/);
  });

  test('with nat, tells whether answers to clients elsewhere come back', async () => {
    const config = configuration({ mode: 'nat' }, false);
    const wrong = await doctor(config);
    assert.equal(
      problems(wrong).filter((text) => text.includes('do not come back here')).length,
      6,
      problems(wrong).join('\n'),
    );
    for (const name of BACKENDS) {
      for (const family of FAMILIES) {
        await lab.host(name).ip(`-${family} route replace default via ${BALANCER[family]}`);
      }
    }
    const right = await doctor(config);
    assert.deepEqual(problems(right), []);
    await assertCleanedUp();
  });

  test('measures the path: a hop that says what it takes, and one that says nothing', async () => {
    // b9 is the client's machine, behind the router; b1 is on the bridge, which drops what a port does not take.
    await router.ip('link set client mtu 1400');
    await router.ip('link set b1 mtu 1392');
    try {
      const backends = {
        4: [CLIENTS[4][0], '10.2.0.11', '10.2.0.12'],
        6: [CLIENTS[6][0], 'fd02::12'],
      };
      const raw = configuration({ mode: 'nat', returnPath: 'masquerade' }, false);
      const pools = FAMILIES.map((family) => ({
        name: `v${family}`,
        backends: backends[family].map((address, index) => ({ name: `x${index}`, address })),
      }));
      const { sections } = await doctor({ ...raw, backendPools: pools });
      const found = sections.flatMap(({ title, findings }) =>
        findings
          .filter(({ text }) => text.includes('(path MTU)'))
          .map(({ level, text }) => {
            const says = / (\S+ says so|dropped silently)/.exec(text)?.[1] ?? 'whole';
            return `${title.split(',')[0]} ${level} ${/(\d+) bytes/.exec(text)?.[1]} ${says}`;
          }),
      );
      assert.deepEqual(found, [
        'Backend v4/x0 warning 1400 10.2.0.254 says so',
        'Backend v4/x1 problem 1392 dropped silently',
        'Backend v4/x2 fine 1500 whole',
        'Backend v6/x0 warning 1400 fd02::254 says so',
        'Backend v6/x1 fine 1500 whole',
      ]);
    } finally {
      await router.ip('link set client mtu 1500');
      await router.ip('link set b1 mtu 1500');
    }
  });
});
