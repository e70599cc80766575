import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';
import type { Browser } from 'playwright-core';
import { eventually } from '../support/deadline.js';
import { NVA_PROBE, useService, type Opened } from '../support/service.js';
import { TcpClient } from '../support/tcp-client.js';
import { launchChromium, noChromium, openPage, tabTo } from '../unit/admin/dashboard/chromium.js';

const FLOWS = 24;

/** The built process, used in a browser as an operator would. */
describe('the dashboard of the built process', { skip: noChromium() }, () => {
  const service = useService(
    { ports: [8000, 8009], probe: { ...NVA_PROBE, interval: '300ms' } },
    { isStarted: false, keepsClients: true },
  );
  const { host, nvas } = service;
  const adminAddress = `${host(1)}:9901`;
  let browser: Browser;
  let clients: readonly Opened<TcpClient>[];

  const start = () => service.start({ top: { admin: { http: adminAddress } } });

  before(async () => {
    await start();
    clients = await Promise.all(Array.from({ length: FLOWS }, (_, index) => service.tcp(index)));
    browser = await launchChromium();
  });

  after(() => browser.close());

  test('finds the backend of a flow, drains it, sees it finish, and takes it back', async (t) => {
    const viewer = await openPage(browser, `http://${adminAddress}/`);
    t.after(() => viewer.close());
    const { page, complaints, urls } = viewer;
    await page.getByText('Events are live').waitFor();
    await page.getByText('No problems').waitFor();
    await page.getByText(`${FLOWS} shown of ${FLOWS} that match`).waitFor();

    const chosen = clients[0];
    assert.ok(chosen !== undefined);
    const { localPort } = chosen.client.socket;
    await page.getByLabel('Source (client)').fill(`${host(100)}:${localPort}`);
    await page.getByLabel('Destination (frontend)').fill(`${host(1)}:8000`);
    await page.keyboard.press('Enter');
    await page
      .getByText(`The live flow is on nvas/${chosen.backend}, where a new one would go too`)
      .waitFor();
    assert.equal(await page.locator('.node.on-route').last().locator('strong').innerText(), chosen.backend);

    await tabTo(page, `Drain ${chosen.backend}`);
    await page.keyboard.press('Enter');
    const dialog = page.getByRole('dialog', { name: `Drain ${chosen.backend} of pool nvas?` });
    await dialog.waitFor();
    await page.keyboard.press('ControlOrMeta+a');
    await page.keyboard.type('1m');
    await page.keyboard.press('Enter');
    await dialog.waitFor({ state: 'detached' });
    const mine = clients.filter(({ backend }) => backend === chosen.backend);
    await page.getByText(`Draining: ${mine.length} flows left of ${mine.length}`).waitFor();

    // New flows go elsewhere; those that are there go on, until their clients have done.
    for (let index = 0; index < 12; index++) {
      const client = await TcpClient.connect({ host: host(1), port: 8009, localAddress: host(140 + index) });
      assert.notEqual(await client.backend(), chosen.backend);
      client.socket.destroy();
    }
    assert.equal(await chosen.client.backend(), chosen.backend);
    for (const { client } of mine) client.socket.end();
    await page.getByText('Drained: no flow is left').waitFor();
    await page.locator('#events').getByText(/drain/i).first().waitFor();

    await page.getByRole('button', { name: `Cancel the drain of ${chosen.backend}` }).click();
    await page.getByRole('dialog').getByRole('button', { name: 'Cancel the drain' }).click();
    await page.getByRole('button', { name: `Drain ${chosen.backend}`, exact: true }).waitFor();
    await page.locator('.backend.serving').nth(2).waitFor();
    assert.deepEqual(complaints, []);
    assert.deepEqual(
      urls.filter((url) => !url.startsWith(`http://${adminAddress}/`) && !url.startsWith('data:')),
      [],
    );
  });

  test('shows a backend that falls ill, with the evidence, and one that is switched down', async (t) => {
    const viewer = await openPage(browser, `http://${adminAddress}/`, { width: 390, height: 844 });
    t.after(() => viewer.close());
    const { page, complaints } = viewer;
    const node = (name: string) => page.locator('.node.backend', { hasText: name });
    await node('nva-3').getByText('serving').waitFor();
    await nvas[2]?.setHealth('sick');
    await node('nva-3').getByText('down').waitFor();
    await node('nva-3').getByRole('button').focus();
    assert.match(await page.getByRole('tooltip').innerText(), /up → down: .*503/);
    await nvas[2]?.setHealth('well');
    await node('nva-3').getByText('serving').waitFor();

    await page.getByRole('button', { name: 'Admin state of nva-1' }).click();
    await page.getByRole('radio', { name: 'down: take no new flows' }).check();
    await page.keyboard.press('Enter');
    await node('nva-1').getByText('down').waitFor();
    await page.getByRole('button', { name: 'Admin state of nva-1' }).click();
    await page.getByRole('radio', { name: 'configured: what the configuration says' }).check();
    await page.keyboard.press('Enter');
    await node('nva-1').getByText('serving').waitFor();
    assert.equal(await page.evaluate('document.documentElement.scrollWidth'), 390);
    assert.deepEqual(complaints, []);
  });

  test('survives a new process: events from the first one again', async (t) => {
    const viewer = await openPage(browser, `http://${adminAddress}/`);
    t.after(() => viewer.close());
    const { page } = viewer;
    await page.getByText('Events are live').waitFor();
    await service.process.stop();
    await page.getByText(/Event stream cut/).waitFor();
    await page
      .getByText(/The admin API cannot be reached/)
      .first()
      .waitFor();
    const { pid } = await start();
    await page.getByText('Events are live').waitFor();
    await page.getByText(`pid ${pid} `).waitFor();
    await eventually(
      async () => (await page.locator('#events li').count()) > 0,
      10_000,
      'the events of the new process',
    );
  });
});
