import { replaceTableText, routingText, type KernelSetup } from '../../nft/kernel-setup.js';

/** Elements of a set that are shown where not all are. */
const SHOWN = 4;

/**
 * A setup as nft reads it, with the commands for routes and addresses as comments. Not `full`: the first elements of
 * each set, and how many there are. Pure.
 */
export function setupText(setup: KernelSetup, { full }: { readonly full: boolean }): string {
  const text = replaceTableText(setup);
  const table = full ? text : text.split('\n').flatMap(abbreviated).join('\n');
  const routing = routingText(setup).replace(/^(?=.)/gm, '# ');
  return `# Run first, where it is not there yet:\n${routing}#\n# The table, by nft -f:\n${table}`;
}

/** `add element inet haports tcp4-hub { 1 : 240.7.0.1, ... }` */
function abbreviated(line: string): readonly string[] {
  const match = /^(add element .*?\{ )(.*) \}$/.exec(line);
  if (match === null) return [line];
  const [, head = '', list = ''] = match;
  const elements = list.split(', ');
  if (elements.length <= SHOWN) return [line];
  return [
    `${head}${elements.slice(0, SHOWN).join(', ')} }`,
    `# ... and ${elements.length - SHOWN} more of these`,
  ];
}
