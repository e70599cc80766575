import type { Cidr } from '../../../model/cidr.js';
import type { KernelInput, KernelRule } from '../kernel-input.js';
import { otherProtocolsRule } from './frontend-dispatch.js';
import { outSet, REHASHES, slotMap } from './placement.js';
import { chainText, hex32 } from './table-text.js';

/*
 * ICMP errors without flow state: they belong to the flow whose packet they hold, and are placed by the tuple of that
 * packet. With flow state conntrack knows.
 */

/** Bits from the start of the ICMP header to fields of the packet that is held: 8 bytes, then an IP header without options. */
const INSIDE = {
  4: {
    source: '@th,160,32',
    destination: '@th,192,32',
    protocol: '@th,136,8',
    ports: ['@th,224,16', '@th,240,16'],
  },
  6: {
    source: '@th,128,128',
    destination: '@th,256,128',
    protocol: '@th,112,8',
    ports: ['@th,384,16', '@th,400,16'],
  },
} as const;

const ERRORS = {
  4: 'icmp type { destination-unreachable, time-exceeded, parameter-problem }',
  6: 'icmpv6 type { destination-unreachable, packet-too-big, time-exceeded, parameter-problem }',
} as const;

/** Sends errors to `error4`. Empty where no rule takes other protocols than TCP and UDP. */
export function errorRule(family: 4 | 6, rules: readonly KernelRule[]): string[] {
  return otherProtocolsRule(rules) === undefined ? [] : [`${ERRORS[family]} goto error${family}`];
}

export function errorChains(family: 4 | 6, rules: readonly KernelRule[], input: KernelInput): string[] {
  const rule = otherProtocolsRule(rules);
  if (rule === undefined) return [];
  const spokes = input.options.spokes.filter(({ address }) => address.family === family);
  const { source, destination } = INSIDE[family];
  return [
    ...chainText(`error-there${family}`, undefined, placeError(family, rule, input, false)),
    ...chainText(`error-back${family}`, undefined, placeError(family, rule, input, true)),
    ...spokes.flatMap((_, from) =>
      chainText(
        `error${family}-${from}`,
        undefined,
        spokes.flatMap((spoke, to) =>
          to === from
            ? []
            : [`${isIn(destination, spoke)} goto error-${to > from ? 'there' : 'back'}${family}`],
        ),
      ),
    ),
    ...chainText(
      `error${family}`,
      undefined,
      spokes.map((spoke, from) => `${isIn(source, spoke)} goto error${family}-${from}`),
    ),
  ];
}

function placeError(
  family: 4 | 6,
  { rule, table }: KernelRule,
  input: KernelInput,
  reversed: boolean,
): string[] {
  const { source, destination, protocol, ports } = INSIDE[family];
  const order = <T>(fields: readonly T[]): readonly T[] => (reversed ? [...fields].reverse() : fields);
  const set = (round: number, withPorts: boolean): string => {
    const fields = [
      ...order([source, destination]),
      ...(rule.distribution === 'source-ip' ? [] : [protocol]),
      ...(withPorts ? order(ports) : []),
    ];
    const seed = hex32((input.seed + round) >>> 0);
    const slot = `jhash ${fields.join(' . ')} mod ${input.tableSize} seed ${seed}`;
    return `meta mark set ${slot} map @${slotMap(table)}`;
  };
  const rounds = Array.from({ length: 1 + REHASHES }, (_, round) => {
    const again = round === 0 ? '' : `meta mark @${outSet(table)} `;
    if (rule.distribution !== 'five-tuple') return [`${again}${set(round, false)}`];
    return [
      `${protocol} { 6, 17 } ${again}${set(round, true)}`,
      `${protocol} != { 6, 17 } ${again}${set(round, false)}`,
    ];
  });
  return [
    'meta mark set 0',
    ...rounds.flat(),
    'meta mark 0 drop',
    `meta mark @${outSet(table)} drop`,
    'notrack',
    'accept',
  ];
}

/** `@th,160,32 & 0xffff0000 == 0x0a0a0000`. */
function isIn(field: string, { address, prefixLength }: Cidr): string {
  const hex = (bytes: readonly number[]): string => `0x${Buffer.from(bytes).toString('hex')}`;
  const mask = address.bytes.map((_, index) => {
    const bits = Math.min(8, Math.max(0, prefixLength - 8 * index));
    return (0xff << (8 - bits)) & 0xff;
  });
  return `${field} & ${hex(mask)} == ${hex(address.bytes)}`;
}
