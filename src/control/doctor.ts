import type { BackendPool, Configuration } from '../model/configuration.js';
import { floatingAdvice, frontendsOf, probeAdvice, probesOf } from './doctor-advice.js';
import { examineBackends, type BackendOptions } from './doctor-backends.js';
import { examineFrontends, routeTo } from './doctor-frontends.js';
import { examineHost, mayAdminister } from './doctor-host.js';
import { note, type DoctorFinding, type DoctorMachine, type DoctorSection } from './doctor-machine.js';
import { asStranger, removeLeftovers } from './doctor-path.js';

export interface DoctorReport {
  /** No problem was found. */
  readonly healthy: boolean;
  readonly sections: readonly DoctorSection[];
}

/** Examines this machine and the ways to all backends. Never rejects. */
export async function examine(
  machine: DoctorMachine,
  configuration: Configuration,
  options: BackendOptions,
): Promise<DoctorReport> {
  const host = await examineHost(machine, configuration);
  const frontends = await examineFrontends(machine, configuration);
  const isKernel = configuration.kernel !== undefined;
  const paths =
    isKernel && options.paths === 'tried' && (await mayAdminister(machine)) ? 'tried' : 'not-tried';
  const look = (): Promise<readonly DoctorSection[]> =>
    examineBackends(machine, configuration, { ...options, paths });
  if (paths === 'tried') await removeLeftovers(machine);
  const backends =
    paths === 'tried' && configuration.kernel?.mode === 'nat'
      ? await asStranger(machine, 4, () => asStranger(machine, 6, look))
      : await look();
  const missing =
    isKernel && paths === 'not-tried'
      ? [
          note(
            'The ways that flows take were not tried, which changes routes for a moment and needs CAP_NET_ADMIN',
          ),
        ]
      : [];
  const sections = [
    { title: 'This machine', findings: [...host, ...missing] },
    ...frontends,
    ...backends,
    ...(await needs(machine, configuration)),
  ];
  const healthy = !sections.some(({ findings }) => findings.some(({ level }) => level === 'problem'));
  return { healthy, sections };
}

/** What backends must have, whether they have it or not. */
async function needs(machine: DoctorMachine, configuration: Configuration): Promise<DoctorSection[]> {
  const sections = configuration.backendPools.map(async (pool): Promise<DoctorSection> => {
    const findings = [
      ...floatingNeeds(configuration, pool),
      ...(await probeNeeds(machine, configuration, pool)),
    ];
    return { title: `What each backend of pool ${pool.name} needs`, findings };
  });
  return (await Promise.all(sections)).filter(({ findings }) => findings.length > 0);
}

function floatingNeeds(configuration: Configuration, pool: BackendPool): DoctorFinding[] {
  const mode = configuration.kernel?.mode;
  if (mode !== 'floating-l2' && mode !== 'floating-routed') return [];
  const addresses = frontendsOf(configuration, pool).map(({ address }) => address);
  if (addresses.length === 0) return [];
  const lines = floatingAdvice(addresses).flatMap(({ system, commands }) =>
    commands.map((command) => `${system}: ${command}`),
  );
  return [
    note("The frontend's address on its loopback, told to nobody, and no reverse path filter", ...lines),
  ];
}

async function probeNeeds(
  machine: DoctorMachine,
  configuration: Configuration,
  pool: BackendPool,
): Promise<DoctorFinding[]> {
  const probes = probesOf(configuration, pool);
  const [backend] = pool.backends;
  if (backend === undefined || probes.length === 0) return [];
  const route = await routeTo(machine, backend.address);
  const source =
    probes.find(({ sourceAddress }) => sourceAddress !== undefined)?.sourceAddress?.text ?? route?.source;
  if (source === undefined) return [];
  const device = route?.device === undefined ? '' : ` on ${route.device}`;
  const text = `Probes come from ${source}${device}: its firewall must let them in, and its answers must leave by the interface they came in`;
  return [note(text, ...probeAdvice(backend, probes, source))];
}
