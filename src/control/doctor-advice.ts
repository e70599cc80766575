import type { IpAddress } from '../model/address.js';
import type { Backend, BackendPool, Configuration, Frontend } from '../model/configuration.js';
import type { Probe } from '../model/probe.js';

/** What is to be done on a backend, by its system. */
export interface BackendAdvice {
  readonly system: 'Linux' | 'Windows (PowerShell)' | 'FreeBSD';
  readonly commands: readonly string[];
}

/** The frontends whose flows a pool gets, as far as they are one family with a backend of it. */
export function frontendsOf(
  { frontends, rules }: Configuration,
  pool: Pick<BackendPool, 'name'>,
): readonly Frontend[] {
  return frontends.filter(({ name }) =>
    rules.some((rule) => rule.frontend === name && rule.backendPool === pool.name),
  );
}

/** The probes that ask backends of a pool. */
export function probesOf(
  { probes, rules }: Configuration,
  pool: Pick<BackendPool, 'name'>,
): readonly Probe[] {
  return probes.filter(({ name }) =>
    rules.some((rule) => rule.probe === name && rule.backendPool === pool.name),
  );
}

/**
 * With floating IP a backend has the frontend's address itself, tells nobody so, and takes packets whose answers leave
 * another way than they came.
 */
export function floatingAdvice(addresses: readonly IpAddress[]): readonly BackendAdvice[] {
  const four = addresses.filter(({ family }) => family === 4).map(({ text }) => text);
  const six = addresses.filter(({ family }) => family === 6).map(({ text }) => text);
  return [
    {
      system: 'Linux',
      commands: [
        ...four.map((text) => `ip address add ${text}/32 dev lo`),
        ...six.map((text) => `ip address add ${text}/128 dev lo nodad`),
        ...(four.length === 0
          ? []
          : [
              'sysctl -w net.ipv4.conf.all.arp_ignore=1 net.ipv4.conf.all.arp_announce=2',
              'sysctl -w net.ipv4.conf.all.rp_filter=0 net.ipv4.conf.eth0.rp_filter=0    # eth0: where packets arrive',
            ]),
      ],
    },
    {
      system: 'Windows (PowerShell)',
      commands: [
        '# "loopback" is a Microsoft KM-TEST Loopback Adapter (hdwwiz.exe), "Ethernet" where packets arrive',
        ...four.map(
          (text) => `New-NetIPAddress -InterfaceAlias "loopback" -IPAddress ${text} -PrefixLength 32`,
        ),
        ...six.map(
          (text) => `New-NetIPAddress -InterfaceAlias "loopback" -IPAddress ${text} -PrefixLength 128`,
        ),
        ...[four.length > 0 ? 'ipv4' : '', six.length > 0 ? 'ipv6' : '']
          .filter((version) => version !== '')
          .flatMap((version) => [
            `netsh interface ${version} set interface "Ethernet" weakhostreceive=enabled weakhostsend=enabled`,
            `netsh interface ${version} set interface "loopback" weakhostreceive=enabled weakhostsend=enabled`,
          ]),
      ],
    },
    {
      system: 'FreeBSD',
      commands: [
        ...four.map((text) => `ifconfig lo0 inet ${text}/32 alias`),
        ...six.map((text) => `ifconfig lo0 inet6 ${text}/128 alias`),
        'sysctl net.inet.ip.check_interface=0    # the default; from 14 on: net.inet.ip.rfc1122_strong_es=0',
      ],
    },
  ];
}

/** What a firewall on the backend must let in so that probes get an answer, and how. */
export function probeAdvice(
  backend: Pick<Backend, 'address'>,
  probes: readonly Pick<Probe, 'port' | 'sourceAddress'>[],
  source: string | undefined,
): readonly string[] {
  const ports = [...new Set(probes.map(({ port }) => port))];
  const from = probes.find(({ sourceAddress }) => sourceAddress !== undefined)?.sourceAddress?.text ?? source;
  if (ports.length === 0 || from === undefined) return [];
  const list = ports.join(', ');
  const ip = backend.address.family === 4 ? 'ip' : 'ip6';
  return [
    `Linux: nft add rule inet filter input ${ip} saddr ${from} tcp dport { ${list} } accept`,
    `Windows: New-NetFirewallRule -DisplayName "haports probes" -Direction Inbound -Protocol TCP -RemoteAddress ${from} -LocalPort ${ports.join(',')} -Action Allow`,
    `FreeBSD: pass in proto tcp from ${from} to any port { ${list} }    # /etc/pf.conf`,
  ];
}
