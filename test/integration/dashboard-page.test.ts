import assert from 'node:assert/strict';
import { after, before, describe, test, type TestContext } from 'node:test';
import type { Browser } from 'playwright-core';
import { campaign } from '../support/campaign.js';
import { eventually } from '../support/deadline.js';
import {
  launchChromium,
  noChromium,
  openPage,
  tabTo,
  type Viewer,
  type ViewerOptions,
} from '../unit/admin/dashboard/chromium.js';
import { FakeApi, aNode } from '../unit/admin/dashboard/fake-api.js';

/** A name that would be a script if anything put it into the page as HTML. */
const HOSTILE = '<img src=x onerror="document.title=1">';

/** The page in a real browser, over an admin API with made-up answers. */
describe('the page of the dashboard', { skip: noChromium() }, () => {
  let browser: Browser;
  before(async () => {
    browser = await launchChromium();
  });
  after(() => browser.close());

  async function open(
    t: TestContext,
    options: ViewerOptions & { readonly prepare?: (api: FakeApi) => void; readonly token?: string } = {},
  ): Promise<Viewer & { readonly api: FakeApi }> {
    const api = new FakeApi();
    options.prepare?.(api);
    await api.start(options.token);
    const viewer = await openPage(browser, api.url, options);
    t.after(async () => {
      await viewer.close();
      await api.stop();
    });
    return { ...viewer, api };
  }

  /** Whole pixels that stick out on the right. */
  const OVERFLOW = 'document.documentElement.scrollWidth - document.documentElement.clientWidth';

  test('loads without a complaint, an outside request or a layout shift', async (t) => {
    const { page, complaints, urls, api } = await open(t, {
      // All of it in view: what moves out of sight is no shift.
      height: 3600,
      prepare: (fake) => {
        fake.problems = [HOSTILE];
        fake.backends = [...fake.backends, aNode(5, { name: HOSTILE })];
        fake.fake.events.tell(HOSTILE);
      },
    });
    await page.getByText('Events are live').waitFor();
    for (const name of ['Now', 'Traffic path', 'Where does this flow go?', 'Backends', 'Flows', 'Events']) {
      await page.getByRole('heading', { level: 2, name, exact: true }).waitFor();
    }
    await page.locator('.plot canvas').nth(1).waitFor();
    // Several rounds of every poll.
    await page.waitForTimeout(4500);
    assert.deepEqual(complaints, []);
    assert.deepEqual(
      urls.filter((url) => !url.startsWith(api.url) && !url.startsWith('data:')),
      [],
    );
    assert.equal(await page.title(), 'haports');
    assert.ok((await page.getByText(HOSTILE).count()) >= 3, 'shown as the text that it is');
    const shift = await page.evaluate<number>('layoutShift');
    assert.ok(shift < 0.01, `layout shift ${shift}`);
  });

  test('a violation of the policy would be seen', async (t) => {
    const { page, complaints } = await open(t);
    await page.evaluate(`document.body.insertAdjacentHTML('beforeend', '<p style="color:red">planted</p>')`);
    await eventually(
      () => complaints.some((one) => one.startsWith('violation: style-src')),
      5000,
      'a complaint',
    );
  });

  test('draws the traffic path, with lines as thick as the traffic, and history on focus', async (t) => {
    const { page } = await open(t);
    await page.locator('.lines path').nth(7).waitFor();
    const widths = await page
      .locator('.lines path')
      .evaluateAll((paths: readonly { getAttribute(name: string): string }[]) =>
        paths.map((path) => Number(path.getAttribute('stroke-width'))),
      );
    assert.equal(widths.length, 8, 'two lines a rule, one a backend');
    assert.ok(Math.max(...widths) > 3 * Math.min(...widths), `widths ${widths.join(' ')}`);
    await page.locator('.backend button', { hasText: 'nva-4' }).focus();
    const history = page.getByRole('tooltip');
    assert.match(await history.innerText(), /nva-4 is not serving: its probe is down/);
    assert.match(await history.innerText(), /up → down: ECONNREFUSED/);
    await page.keyboard.press('Escape');
    await history.waitFor({ state: 'detached' });
    const words = await page.locator('.backend .condition').allInnerTexts();
    assert.deepEqual(words, ['serving', 'serving', 'serving', 'down'], 'words, not only colours');
  });

  test('explains where a flow goes, the live one first, and shows what the API objects to', async (t) => {
    const { page, api, complaints } = await open(t);
    await page.getByLabel('Source (client)').fill('192.0.2.7:40000');
    await page.getByLabel('Destination (frontend)').fill('127.0.0.1:8080');
    await page.keyboard.press('Enter');
    const sentence = page.locator('.sentence');
    await sentence.waitFor();
    assert.equal(
      await sentence.innerText(),
      'tcp 192.0.2.7:40000 -> 127.0.0.1:8080: No such flow is live; a new one would go to nvas/nva-2 at 127.0.0.12:8080',
    );
    assert.match(await page.locator('.candidates').innerText(), /nva-4 .*\s+skipped: its probe is down/);
    assert.match(await page.locator('.details').innerText(), /source port\s+40000 \(9c40\)/);
    assert.equal(await page.locator('.node.on-route').count(), 4, 'the way is marked in the picture');

    api.liveFlow = true;
    await page.getByRole('button', { name: 'Explain', exact: true }).first().click();
    await page.getByText('The live flow is on nvas/nva-3, but a new one would go to nvas/nva-2').waitFor();
    await page.locator('.backend.on-route', { hasText: 'nva-3' }).waitFor();

    await page.getByLabel('Destination (frontend)').fill('nonsense');
    await page.keyboard.press('Enter');
    await page
      .getByText(/"destination" is "nonsense", must be an address and port .* \(LB_USAGE\)/)
      .waitFor();
    assert.equal(await page.locator('.node.on-route').count(), 0);
    assert.deepEqual(
      complaints.filter((one) => !one.includes('400')),
      [],
    );
  });

  test('drains a backend by keyboard alone, shows it finish, and cancels', async (t) => {
    const { page, api, complaints } = await open(t);
    await page.getByText('Events are live').waitFor();
    await page.keyboard.press('Tab');
    assert.equal(await page.evaluate('document.activeElement.className'), 'skip');
    await page.keyboard.press('Enter');
    await tabTo(page, 'Drain nva-2');
    await page.keyboard.press('Enter');
    const dialog = page.getByRole('dialog', { name: 'Drain nva-2 of pool nvas?' });
    await dialog.waitFor();
    assert.equal(await page.evaluate('document.activeElement.name'), 'deadline');
    await page.keyboard.press('Escape');
    await dialog.waitFor({ state: 'detached' });
    assert.deepEqual(api.written, [], 'Escape changes nothing');
    assert.equal(await page.evaluate('document.activeElement.ariaLabel'), 'Drain nva-2');

    await page.keyboard.press('Enter');
    await dialog.waitFor();
    await page.keyboard.press('ControlOrMeta+a');
    await page.keyboard.type('5m');
    await page.keyboard.press('Tab');
    await page.keyboard.press('ArrowDown');
    await page.keyboard.press('Enter');
    await dialog.waitFor({ state: 'detached' });
    const backend = { pool: 'nvas', backend: '127.0.0.12' };
    assert.deepEqual(api.written, [
      ['drain', { ...backend, deadlineMs: 300_000, then: 'leave', spreadMs: 10_000, force: false }],
    ]);
    await page.getByText(/Draining: 40 flows left of 40/).waitFor();
    await page.getByText(/Finish: in about 1m1\ds by themselves/).waitFor();
    api.setDrain(7);
    await page.getByText(/Draining: 7 flows left of 40/).waitFor();
    assert.equal(await page.getByRole('progressbar', { name: 'Drain of nva-2' }).getAttribute('value'), '33');
    api.setDrain(0);
    await page.getByText(/Drained: no flow is left/).waitFor();
    await page.getByRole('status').filter({ hasText: 'Drained: nva-2' }).waitFor({ state: 'attached' });

    assert.equal(await page.evaluate('document.activeElement.ariaLabel'), 'Cancel the drain of nva-2');
    await page.keyboard.press('Enter');
    await page.getByRole('dialog', { name: 'Cancel the drain of nva-2?' }).waitFor();
    await tabTo(page, 'Cancel the drain');
    await page.keyboard.press('Enter');
    await page.getByRole('button', { name: 'Drain nva-2', exact: true }).waitFor();
    assert.deepEqual(api.written[1], ['cancelDrain', backend]);
    assert.deepEqual(complaints, []);
  });

  test('drains against the minimum only when told twice', async (t) => {
    const { page, api } = await open(t, { prepare: (fake) => void (fake.wantsForce = true) });
    await page.getByRole('button', { name: 'Drain nva-1', exact: true }).click();
    const dialog = page.getByRole('dialog');
    await dialog.getByRole('button', { name: 'Drain' }).click();
    await dialog.getByText('Pool "nvas" would have 0 serving backends, must keep 1 (LB_CONFLICT)').waitFor();
    await dialog.getByLabel('Drain anyway').check();
    await dialog.getByRole('button', { name: 'Drain' }).click();
    await dialog.waitFor({ state: 'detached' });
    assert.deepEqual(
      api.written.map(([, request]) => (request as { force: boolean }).force),
      [false, true],
    );
  });

  test('says that the stream is cut, comes back and misses nothing', async (t) => {
    const { page, api } = await open(t);
    await page.getByText('Events are live').waitFor();
    await page.getByText('Revision 11 is served').waitFor();
    await api.stop();
    await page.getByText(/Event stream cut .*reconnecting, attempt \d+/).waitFor();
    await page.getByText(/The admin API cannot be reached; what you see is from/).waitFor();
    api.fake.events.tell('written while the page was away');
    await api.start();
    await page.getByText('written while the page was away').waitFor();
    await page.getByText('Events are live').waitFor();
    await page.getByText('No problems').waitFor();
    assert.deepEqual([...new Set(api.fake.events.resumed)], [0, 12]);
    api.fake.events.tell('told live');
    await page.getByText('told live').waitFor();
    assert.equal(await page.getByText('Revision 11 is served').count(), 1, 'nothing twice');
  });

  test('shows what the API answers instead of data', async (t) => {
    const { page } = await open(t, { prepare: (fake) => void (fake.broken = true) });
    await page.getByText('The data plane does not answer').waitFor();
  });

  test('asks for the token where the API wants one, and keeps it for the tab', async (t) => {
    const { page, api } = await open(t, { token: 'the-right-token-of-all' });
    const dialog = page.getByRole('dialog', { name: 'Token needed' });
    await dialog.waitFor();
    await page.keyboard.press('Escape');
    await page.keyboard.press('Escape');
    await page.waitForTimeout(1500);
    assert.equal(await dialog.getByText('not accepted').count(), 0, 'Escape is no answer');
    await dialog.getByLabel('Token').fill('wrong');
    await page.keyboard.press('Enter');
    await dialog.getByText('The token was not accepted').waitFor();
    await dialog.getByLabel('Token').fill('the-right-token-of-all');
    await page.keyboard.press('Enter');
    await page.getByText('Events are live').waitFor();
    await page.getByText('No problems').waitFor();
    await page.reload();
    await page.getByText('Events are live').waitFor();
    assert.equal(await dialog.count(), 0);
    await api.stop();
    await api.start('another-token-than-before');
    await dialog.getByText('The token was not accepted').waitFor();
  });

  test('lists flows as filtered, and explains one of them', async (t) => {
    const { page } = await open(t);
    const shown = page.getByText(/shown of/);
    await page.getByText('60 shown of 60 that match').waitFor();
    await page.locator('#flows').getByLabel('Protocol').selectOption('udp');
    await page.getByText('20 shown of 20 that match').waitFor();
    assert.equal(await shown.count(), 1);
    await page.getByRole('button', { name: 'Age' }).waitFor();
    await page.getByRole('button', { name: 'Bytes' }).click();
    const bytes = page.getByRole('columnheader', { name: 'Bytes' });
    // The page draws itself anew a moment after a click.
    await eventually(
      async () => (await bytes.getAttribute('aria-sort')) === 'descending',
      5000,
      'flows to be sorted by bytes, largest first',
    );
    await page.getByRole('button', { name: 'Explain udp 192.0.2.7:40003' }).click();
    await eventually(
      async () => (await page.getByLabel('Source (client)').inputValue()) === '192.0.2.7:40003',
      5000,
      'the form to have the client of the flow',
    );
    await page.locator('.sentence').waitFor();
  });

  test('draws the charts', async (t) => {
    const { page } = await open(t);
    const chart = page.getByRole('img', {
      name: /Throughput, last five minutes. Now: to backends 1.20 Mbit/,
    });
    await chart.locator('canvas').waitFor();
    const inked = `(() => {
      const canvas = document.querySelector('.plot canvas');
      const pixels = canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height).data;
      const colours = new Set();
      for (let at = 0; at < pixels.length; at += 4)
        if (pixels[at + 3] > 200) colours.add(pixels.slice(at, at + 3).join(','));
      return [...colours];
    })()`;
    await eventually(
      async () => {
        const colours = await page.evaluate<string[]>(inked);
        return colours.includes('29,95,196') && colours.includes('179,84,30');
      },
      8000,
      'both lines in their colours',
    );
  });

  const looks = [
    [390, 'dark'],
    [1440, 'light'],
    [390, 'light'],
    [1440, 'dark'],
  ] as const;
  for (const [width, colorScheme] of looks.slice(0, campaign({ share: 2, whole: looks.length }))) {
    test(`fits ${width} px, ${colorScheme}`, async (t) => {
      const { page, api } = await open(t, {
        width,
        colorScheme,
        prepare: (fake) => {
          fake.problems = ['A problem with a name that has no place to break: ' + 'x'.repeat(120)];
          fake.fake.events.tell('y'.repeat(300));
        },
      });
      await page.getByText('Events are live').waitFor();
      assert.equal(await page.evaluate(OVERFLOW), 0, `${colorScheme}: at rest`);
      api.setDrain(12);
      await page.getByText(/12 flows left of 40/).waitFor();
      await page.getByRole('button', { name: /Explain udp 192.0.2.7:40003/ }).click();
      await page.locator('.sentence').waitFor();
      await page.locator('.backend button').last().focus();
      await page.getByRole('tooltip').waitFor();
      assert.equal(await page.evaluate(OVERFLOW), 0, `${colorScheme}: drain, answer and history`);
      await page.getByRole('button', { name: 'Drain nva-1', exact: true }).click();
      const box = await page.getByRole('dialog').boundingBox();
      assert.ok(box !== null && box.x >= 0 && box.x + box.width <= width, 'the dialog fits');
      const ground = await page.evaluate<string>('getComputedStyle(document.body).backgroundColor');
      const isDark = Math.max(...(ground.match(/\d+/g) ?? []).map(Number)) < 128;
      assert.equal(isDark, colorScheme === 'dark', ground);
    });
  }

  test('names every control', async (t) => {
    const { page } = await open(t);
    await page.getByText('60 shown of 60 that match').waitFor();
    const nameless = `[...document.querySelectorAll('button, input, select, [role=region], [tabindex="0"]')]
      .filter((one) => !(one.ariaLabel || one.textContent.trim() || one.labels?.length))
      .map((one) => one.outerHTML.slice(0, 100))`;
    assert.deepEqual(await page.evaluate(nameless), []);
  });
});
