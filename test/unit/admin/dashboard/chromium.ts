import { accessSync, constants } from 'node:fs';
import { chromium, type Browser, type Page } from 'playwright-core';

/** Debian's. */
const EXECUTABLE = '/usr/bin/chromium';

/** Why there is no browser to test with; false: there is one. */
export function noChromium(): string | false {
  try {
    accessSync(EXECUTABLE, constants.X_OK);
    return false;
  } catch {
    return `needs ${EXECUTABLE}: apt-get install chromium`;
  }
}

export async function launchChromium(): Promise<Browser> {
  // Root cannot have Chromium's sandbox; the pages are our own.
  return chromium.launch({ executablePath: EXECUTABLE, args: ['--no-sandbox'] });
}

export interface Viewer {
  readonly page: Page;
  /** Errors and warnings of the console, uncaught exceptions, violations of the policy. */
  readonly complaints: string[];
  /** Of all requests. */
  readonly urls: string[];
  close(): Promise<void>;
}

export interface ViewerOptions {
  readonly width?: number;
  readonly height?: number;
  readonly colorScheme?: 'light' | 'dark';
}

/** A fresh browser profile that looks at a page, and writes down what goes wrong. */
export async function openPage(browser: Browser, url: string, options: ViewerOptions = {}): Promise<Viewer> {
  const context = await browser.newContext({
    viewport: { width: options.width ?? 1440, height: options.height ?? 900 },
    colorScheme: options.colorScheme ?? 'light',
    locale: 'en-GB',
  });
  context.setDefaultTimeout(10_000);
  const page = await context.newPage();
  const [complaints, urls]: [string[], string[]] = [[], []];
  page.on('console', (message) => {
    if (['error', 'warning'].includes(message.type())) complaints.push(`console: ${message.text()}`);
  });
  page.on('pageerror', (error) => complaints.push(`exception: ${error.message}`));
  page.on('request', (request) => urls.push(request.url()));
  await page.exposeFunction('tellViolation', (text: string) => complaints.push(`violation: ${text}`));
  await page.addInitScript(`
    document.addEventListener('securitypolicyviolation', (event) =>
      tellViolation(event.violatedDirective + ' ' + event.blockedURI));
    globalThis.layoutShift = 0;
    new PerformanceObserver((list) => {
      for (const entry of list.getEntries()) if (!entry.hadRecentInput) globalThis.layoutShift += entry.value;
    }).observe({ type: 'layout-shift', buffered: true });`);
  await page.goto(url);
  return { page, complaints, urls, close: () => context.close() };
}

/** Presses Tab until the element with this accessible label has the focus. */
export async function tabTo(page: Page, label: string): Promise<void> {
  const focused = `(() => { const one = document.activeElement; return one.getAttribute('aria-label') ?? one.textContent.trim(); })()`;
  for (let presses = 0; presses < 300; presses++) {
    if ((await page.evaluate(focused)) === label) return;
    await page.keyboard.press('Tab');
  }
  throw new Error(`Tab never reaches "${label}"`);
}
