import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { FinishForecast } from '../../../src/control/drains.js';

describe('FinishForecast', () => {
  test('finishInMs() knows nothing while nobody has finished', () => {
    const forecast = new FinishForecast(100, 0);
    assert.equal(forecast.finishInMs(0), undefined);
    forecast.observe(100, 1000);
    assert.equal(forecast.finishInMs(1000), undefined);
  });

  test('finishInMs() is 0 when nobody is left', () => {
    const forecast = new FinishForecast(3, 0);
    forecast.observe(0, 1000);
    assert.equal(forecast.finishInMs(5000), 0);
  });

  test('finishInMs() follows a population that halves every ten seconds', () => {
    const forecast = new FinishForecast(1024, 0);
    for (let seconds = 1; seconds <= 20; seconds++) {
      forecast.observe(Math.round(1024 * 2 ** (-seconds / 10)), seconds * 1000);
    }
    // 256 are left: to a half it takes log2(512) = 9 times ten seconds.
    const inMs = forecast.finishInMs(20_000);
    assert.ok(inMs !== undefined && Math.abs(inMs - 90_000) < 1000, `${inMs} ms`);
    assert.equal(Math.round(forecast.finishInMs(30_000)! - inMs), -10_000, 'time goes by');
  });
});
