import assert from 'node:assert/strict';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, describe, test } from 'node:test';
import { fileURLToPath } from 'node:url';
import type { DoctorReport } from '../../src/doctor/checks.js';
import { BACKENDS, DEVICE, FloatingLab, PORT } from '../support/floating-lab.js';
import { whyNoNamespaces } from '../support/namespaces.js';
import { CLIENTS, FRONTEND } from '../support/nat-lab.js';

const skip = whyNoNamespaces();
const MAIN = fileURLToPath(new URL('../../src/main.js', import.meta.url));
const HOSTS = { 4: '10.2.0.1', 6: 'fd02::1' } as const;

function configuration(kernel: object, floatingIp: boolean, names: readonly string[] = BACKENDS): object {
  const families = [4, 6] as const;
  return {
    dataPlane: { kind: 'kernel', kernel },
    probes: [{ name: 'alive', protocol: 'tcp', port: PORT, interval: '5s', threshold: 2 }],
    frontends: families.map((family) => ({ name: `hub${family}`, address: FRONTEND[family] })),
    backendPools: families.map((family) => ({
      name: `v${family}`,
      backends: names.map((name) => ({ name, address: `${HOSTS[family]}${name.slice(1)}` })),
    })),
    rules: families.map((family) => ({
      ...{ name: `all${family}`, frontend: `hub${family}`, backendPool: `v${family}` },
      ...{ probe: 'alive', haPorts: true, floatingIp },
    })),
  };
}

describe('haports doctor', { skip }, () => {
  let lab: FloatingLab;
  let folder: string;

  before(async () => {
    folder = await mkdtemp(join(tmpdir(), 'haports-doctor-'));
    lab = await FloatingLab.create();
  });
  after(async () => {
    await lab.close();
    await rm(folder, { recursive: true });
  });

  async function doctor(
    config: object,
    ...args: readonly string[]
  ): Promise<DoctorReport & { readonly code: number }> {
    const file = join(folder, 'config.json');
    await writeFile(file, JSON.stringify(config));
    const command = [MAIN, 'doctor', '-c', file, '--json', ...args];
    const { code, stdout, stderr } = await lab.namespaces.run('lb', process.execPath, command, {
      timeoutMs: 30_000,
    });
    assert.notEqual(stdout, '', stderr);
    return { ...(JSON.parse(stdout) as DoctorReport), code: code ?? -1 };
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
      assert.doesNotMatch(await lab.namespaces.must('lb', 'ip', [family, 'rule']), /^679:/m);
      const routes = ['-N', family, 'route', 'show', 'table', 'all', 'proto', '104'];
      assert.equal(await lab.namespaces.must('lb', 'ip', routes), '');
    }
    assert.doesNotMatch(await lab.namespaces.must('lb', 'ip', ['address']), /192\.0\.2\.254|2001:db8/);
  }

  for (const mode of ['floating-l2', 'floating-routed']) {
    test(`finds nothing wrong where nothing is, ${mode}, and leaves nothing behind`, async () => {
      const report = await doctor(configuration({ mode, interface: DEVICE }, true));
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
    const { namespaces } = lab;
    await namespaces.ip('b1', `address del ${FRONTEND[4]}/32 dev lo`);
    try {
      const names = ['b1', 'b3', 'b4'];
      const report = await doctor(configuration({ mode: 'floating-l2', interface: DEVICE }, true, names));
      assert.equal(report.code, 1);
      assert.deepEqual(
        problems(report).map((text) => text.replace(/ \(.*/, '')),
        [
          `Backend v4/b1: It is alive, but does not answer as ${FRONTEND[4]}:${PORT}`,
          `Backend v4/b4: No answer from 10.2.0.14:${PORT}`,
          `Backend v4/b4: Nobody on ${DEVICE} has its address`,
          `Backend v6/b4: No answer from [fd02::14]:${PORT}`,
          `Backend v6/b4: Nobody on ${DEVICE} has its address`,
        ],
      );
      await assertCleanedUp();
    } finally {
      await namespaces.address('b1', 'lo', `${FRONTEND[4]}/32`);
    }
  });

  test('names settings that are wrong, and an interface that is not there', async () => {
    const { namespaces } = lab;
    const config = configuration({ mode: 'floating-routed' }, true);
    await namespaces.sysctl('lb', 'net.ipv4.ip_forward', 0);
    try {
      assert.match(
        problems(await doctor(config, '--no-paths')).join('\n'),
        /net\.ipv4\.ip_forward is 0, must be 1/,
      );
    } finally {
      await namespaces.sysctl('lb', 'net.ipv4.ip_forward', 1);
      await namespaces.sysctl('lb', 'net.ipv4.conf.all.send_redirects', 0);
    }
    const missing = await doctor(
      configuration({ mode: 'floating-l2', interface: 'eth9' }, true),
      '--no-paths',
    );
    assert.match(problems(missing).join('\n'), /Interface eth9 does not exist/);
  });

  test('with nat, tells whether answers to clients elsewhere come back', async () => {
    const { namespaces } = lab;
    const config = configuration({ mode: 'nat' }, false);
    const wrong = await doctor(config);
    assert.equal(
      problems(wrong).filter((text) => text.includes('do not come back here')).length,
      6,
      problems(wrong).join('\n'),
    );
    for (const name of BACKENDS) {
      await namespaces.ip(name, '-4 route replace default via 10.2.0.1');
      await namespaces.ip(name, '-6 route replace default via fd02::1');
    }
    const right = await doctor(config);
    assert.deepEqual(problems(right), []);
    await assertCleanedUp();
  });

  test('measures the path: a hop that says what it takes, and one that says nothing', async () => {
    const { namespaces } = lab;
    // b9 is the client's machine, behind the router; b1 is on the bridge, which drops what a port does not take.
    await namespaces.ip('router', 'link set client mtu 1400');
    await namespaces.ip('router', 'link set b1 mtu 1392');
    try {
      const backends = {
        4: [CLIENTS[4][0], '10.2.0.11', '10.2.0.12'],
        6: [CLIENTS[6][0], 'fd02::12'],
      };
      const raw = configuration({ mode: 'nat', returnPath: 'masquerade' }, false);
      const pools = ([4, 6] as const).map((family) => ({
        name: `v${family}`,
        backends: backends[family].map((address, index) => ({ name: `x${index}`, address })),
      }));
      const { sections } = await doctor({ ...raw, backendPools: pools });
      const found = sections.flatMap(({ title, findings }) =>
        findings
          .filter(({ text }) => text.includes('(path MTU)'))
          .map(({ level, text }) => {
            const says = / (\S+ says so|vanish)/.exec(text)?.[1] ?? 'whole';
            return `${title.split(',')[0]} ${level} ${/(\d+) bytes/.exec(text)?.[1]} ${says}`;
          }),
      );
      assert.deepEqual(found, [
        'Backend v4/x0 warning 1400 10.2.0.254 says so',
        'Backend v4/x1 problem 1392 vanish',
        'Backend v4/x2 fine 1500 whole',
        'Backend v6/x0 warning 1400 fd02::254 says so',
        'Backend v6/x1 fine 1500 whole',
      ]);
    } finally {
      await namespaces.ip('router', 'link set client mtu 1500');
      await namespaces.ip('router', 'link set b1 mtu 1500');
    }
  });
});
