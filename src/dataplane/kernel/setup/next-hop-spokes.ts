import type { KernelOptions } from '../../../model/kernel-options.js';
import { chainText, ipWord } from './table-text.js';

/**
 * `new4`: sends a packet to `there4` or `back4`. With spokes, what goes from an earlier spoke to a later one is hashed as it
 * is and the other direction the other way round, as in selection/flow-hash.ts, and the rest is not balanced. Without, the
 * direction is that of the flow.
 */
export function spokeChains(
  family: 4 | 6,
  { spokes, flowState }: Pick<KernelOptions, 'spokes' | 'flowState'>,
): string[] {
  const entry = `new${family}`;
  if (spokes.length === 0) {
    // Without flow state and without spokes both directions cannot be told apart.
    const rules =
      flowState === 'pinned'
        ? [`ct direction reply goto back${family}`, `goto there${family}`]
        : [`goto there${family}`];
    return chainText(entry, undefined, rules);
  }
  const own = spokes.filter(({ address }) => address.family === family).map(({ text }) => text);
  if (own.length < 2) return chainText(entry, undefined, []);
  const ip = ipWord(family);
  const chains = own.flatMap((_, from) => {
    const ways = own.flatMap((text, to) =>
      to === from ? [] : [`${text} : goto ${to > from ? 'there' : 'back'}${family}`],
    );
    return chainText(`from${family}-${from}`, undefined, [`${ip} daddr vmap { ${ways.join(', ')} }`]);
  });
  const sources = own.map((text, from) => `${text} : goto from${family}-${from}`);
  return [...chains, ...chainText(entry, undefined, [`${ip} saddr vmap { ${sources.join(', ')} }`])];
}
