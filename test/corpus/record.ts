import { parseArgs } from 'node:util';
import { acceptedDifferences, differences, formatDifferences, unaccepted } from './compare.js';
import { measureOffline } from './measure.js';
import { whyNoNamespaces } from '../support/lab.js';
import { measureKernel } from './kernel.js';
import type { Observation } from './observe.js';
import { measurePicks } from './picks.js';
import { classOf, readFacts, readWording, wordingOf, writeRecorded } from './recorded.js';

/*
 * Records what a build answers, or with --compare tells how its answers differ from what is recorded.
 *
 *   node build/test/corpus/record.js --main ../old/dist/main.js
 *   node build/test/corpus/record.js --main dist/main.js --compare --wording --classes check,plan
 */

const { values } = parseArgs({
  options: {
    main: { type: 'string', default: 'dist/main.js' },
    classes: { type: 'string' },
    isolated: { type: 'boolean', default: false },
    compare: { type: 'boolean', default: false },
    wording: { type: 'boolean', default: false },
  },
});

const classes = values.classes?.split(',');
const wanted = (id: string) => classes?.includes(classOf(id)) ?? true;
const say = (text: string) => process.stdout.write(`${text}\n`);

const observed = new Map(await measureOffline(values, wanted));
const add = (more: ReadonlyMap<string, Observation>) => {
  for (const [id, one] of more) if (wanted(id)) observed.set(id, one);
};
if (wanted('picks/')) add(await measurePicks(values.main, () => true));
if (wanted('kernel/')) {
  const why = whyNoNamespaces();
  if (why !== false) say(`No kernel stories: ${why}`);
  else add(await measureKernel(values.main, values.compare ? readFacts(() => true) : undefined));
}
if (!values.compare) {
  writeRecorded(observed);
  say(`${observed.size} cases recorded`);
} else {
  const found = differences(readFacts(wanted), observed);
  const left = unaccepted(found, acceptedDifferences());
  say(`${found.length - left.length} accepted differences`);
  say(formatDifferences(left, values.wording ? Infinity : 40));
  const [was, is] = [readWording(wanted), wordingOf(observed)];
  const gone = [...was].filter((line) => !is.has(line));
  const come = [...is].filter((line) => !was.has(line));
  say(`Wording: ${gone.length} sentences gone, ${come.length} new`);
  if (values.wording) {
    for (const line of gone) say(`- ${line}`);
    for (const line of come) say(`+ ${line}`);
  }
  process.exitCode = left.length === 0 ? 0 : 1;
}
