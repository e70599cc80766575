import assert from 'node:assert/strict';
import { afterEach, before, describe, test } from 'node:test';
import { MAIN } from '../support/haports-process.js';
import { PseudoTerminal } from '../support/pseudo-terminal.js';
import { NVA_PROBE, useService } from '../support/service.js';

const FLOWS = 30;

void describe('haports top on a terminal of 80x24', () => {
  const service = useService({ ports: [8000, 8009], probe: NVA_PROBE }, { keepsClients: true });
  const { host, nvas } = service;
  let terminal: PseudoTerminal | undefined;

  before(async () => {
    for (let index = 0; index < FLOWS; index++) {
      const { client } = await service.tcp(index);
      for (let ask = 0; ask < index; ask++) await client.backend();
    }
  });

  afterEach(() => terminal?.kill());

  const start = (size?: { readonly columns: number; readonly rows: number }): PseudoTerminal => {
    terminal = PseudoTerminal.start(
      [process.execPath, MAIN, 'top', '--socket', service.process.socket],
      size,
    );
    return terminal;
  };

  test('it shows backends and flows, takes keys, and q gives the terminal back', async (context) => {
    const top = start();
    const lines = await top.shows(/Flows 1-\d+ of 30 by age/);
    context.diagnostic(`\n${lines.join('\n')}`);
    assert.ok(top.screen.isAlternate && !top.screen.isCursorShown);
    assert.match(lines[0]!, /3 of 3 backends serving/);
    for (const name of ['nva-1', 'nva-2', 'nva-3']) {
      assert.ok(
        lines.some((line) => new RegExp(`^${name} +serving `).test(line)),
        name,
      );
    }
    assert.match(lines[23]!, /^q quit .*\? help/);
    const flowLines = (shown: readonly string[]) =>
      shown.filter((line) => /^(?:tcp {4})?127\..*nvas\//.test(line));
    assert.ok(flowLines(lines).length >= 8, 'at least eight flows beside the backends');
    assert.ok(flowLines(lines)[0]!.includes(`${host(100)}:`), 'the oldest first');

    top.type('s');
    const byBytes = await top.shows(/by bytes[^]*sort: bytes/);
    assert.ok(flowLines(byBytes)[0]!.includes(`${host(129)}:`), flowLines(byBytes)[0]);
    top.type('f');
    const flowsOnly = await top.shows(/^(?![^]*BACKEND +STATE)[^]*by bytes/);
    assert.ok(flowLines(flowsOnly).length >= 15);
    top.type('f');
    await top.shows(/BACKEND +STATE/);
    top.type('b');
    await top.shows(/^(?![^]*CLIENT)[^]*BACKEND +STATE/);
    top.type('b');
    await top.shows(/CLIENT/);
    top.type('?');
    await top.shows(/q +quit \(Ctrl-C too\)/);
    top.type(' ');
    await top.shows(/CLIENT/);
    top.type(`/${host(105)}`);
    await top.shows(new RegExp(`Client or backend: ${host(105)}_`));
    top.type('\r');
    const filtered = await top.shows(new RegExp(`of 1 by bytes, only "${host(105)}"`));
    assert.equal(flowLines(filtered).length, 1);
    top.type('\u001b');
    await top.shows(/of 30 by bytes\n/);

    top.type('p');
    await top.shows(/PAUSED/);
    await nvas[1]!.setHealth('sick');
    await new Promise((resolve) => setTimeout(resolve, 1500));
    assert.match(top.screen.text, /3 of 3 backends serving/, 'a paused picture stays');
    top.type('p');
    await top.shows(/2 of 3 backends serving[^]*nva-2 +probe/);
    await nvas[1]!.setHealth('well');
    await top.shows(/3 of 3 backends serving/);

    const full = await top.shows(/CLIENT .* BACKEND .* REASON .* TO IT +FROM IT$/m);
    context.diagnostic(`\n${full.join('\n')}`);
    top.type('s');
    await top.shows(/by rate[^]*CLIENT .* BACKEND .* REASON .* BIT\/S$/m);
    top.type('q');
    assert.deepEqual(await top.ended(), { code: 0, same: true });
    const { isAlternate, isCursorShown, wraps } = top.screen;
    assert.deepEqual(
      { isAlternate, isCursorShown, wraps },
      { isAlternate: false, isCursorShown: true, wraps: true },
    );
  });

  test('what is cut off at the right is marked in the last column', async () => {
    const top = start({ columns: 60, rows: 20 });
    const lines = await top.shows(/Flows 1-\d+ of 30/);
    assert.match(lines[19]!, /^q quit .{52}…$/);
    top.type('q');
    assert.equal((await top.ended()).code, 0);
  });

  for (const [what, end] of [
    ['SIGTERM', (top: PseudoTerminal) => top.signal('SIGTERM')],
    ['Ctrl-C', (top: PseudoTerminal) => top.type('\u0003')],
  ] as const) {
    test(`${what} gives the terminal back, too`, async () => {
      const top = start();
      await top.shows(/Flows 1-\d+ of 30/);
      await end(top);
      assert.deepEqual(await top.ended(), { code: 0, same: true });
      const { isAlternate, isCursorShown, wraps } = top.screen;
      assert.deepEqual(
        { isAlternate, isCursorShown, wraps },
        { isAlternate: false, isCursorShown: true, wraps: true },
      );
    });
  }
});
