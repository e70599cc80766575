import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { Monitors } from '../../../src/monitors/alerts.js';
import { AzureHealthEvents } from '../../../src/monitors/azure.js';
import { ProbeTruthMonitor } from '../../../src/monitors/probe-truth.js';
import type { HealthEvent } from '../../../src/model/events.js';
import { FakeClock } from '../../support/fake-clock.js';
import { probedState, row, sample } from './monitor-fixtures.js';

const A = { address: '127.0.0.11' };

function setUp() {
  const clock = new FakeClock();
  const events: HealthEvent[] = [];
  const monitors = new Monitors({ clock, onEvent: (event) => events.push(event) }, [
    new AzureHealthEvents(),
    new ProbeTruthMonitor(),
  ]);
  const told = () => events.map(({ phase, name, subject }) => `${phase} ${name} ${subject}`);
  return { clock, events, monitors, told };
}

describe('Monitors', () => {
  test('observe() raises what a monitor finds, and resolves it', () => {
    const { clock, monitors, told } = setUp();
    monitors.observe(sample(0), probedState([{ ...A, health: 'down' }]));
    assert.deepEqual(told(), ['raised NoHealthyBackends nvas']);
    assert.deepEqual(
      monitors.active.map(({ name, subject }) => ({ name, subject })),
      [{ name: 'NoHealthyBackends', subject: 'nvas' }],
    );
    clock.advance(1000);
    monitors.observe(sample(1000), probedState([A]));
    assert.deepEqual(told().slice(1), ['resolved NoHealthyBackends nvas']);
    assert.deepEqual(monitors.active, []);
    monitors.stop();
  });

  test('observe() gives a probe the time that it needs before it is contradicted', () => {
    const { clock, monitors, events, told } = setUp();
    const state = probedState([A]);
    let raisedAtSecond: number | undefined;
    for (let second = 0; second <= 40; second++) {
      monitors.observe(
        sample(second * 1000, { traffic: [row(A.address, { connectFailures: 5 * second })] }),
        state,
      );
      if (events.length > 0) raisedAtSecond ??= second;
      clock.advance(1000);
    }
    assert.deepEqual(told(), ['raised ProbeUpTrafficFailing nvas/127.0.0.11']);
    // 20 attempts are there after 4 s, and the probe takes 15 s.
    assert.equal(raisedAtSecond, 19);
    monitors.observe(sample(41_000), probedState([{ ...A, health: 'down' }, { address: '127.0.0.12' }]));
    assert.deepEqual(told().slice(1), ['resolved ProbeUpTrafficFailing nvas/127.0.0.11']);
    monitors.stop();
  });

  test('observe() lets a gap in the counters resolve nothing that they had shown', () => {
    const { clock, monitors, told } = setUp();
    const state = probedState([A]);
    for (let second = 0; second <= 20; second++) {
      monitors.observe(
        sample(second * 1000, { traffic: [row(A.address, { connectFailures: 5 * second })] }),
        state,
      );
      clock.advance(1000);
    }
    monitors.observe({ atMs: 21_000, counters: undefined }, state);
    assert.deepEqual(told(), ['raised ProbeUpTrafficFailing nvas/127.0.0.11']);
    monitors.stop();
  });

  test('a data plane that stays silent is found by itself, and stop() ends that', () => {
    const { clock, monitors, told } = setUp();
    const listening = { listeners: { hub: { open: 100, wanted: 100 } } };
    for (let second = 0; second <= 60; second++) {
      monitors.observe(sample(second * 1000, listening), probedState([A]));
      clock.advance(1000);
    }
    clock.advance(60_000);
    assert.deepEqual(told(), [
      'raised DataPathAvailabilityWarning hub',
      'raised DataPathAvailabilityCritical hub',
    ]);
    monitors.stop();
    clock.advance(600_000);
    assert.equal(told().length, 2);
    assert.equal(clock.pendingTimers, 0);
  });

  test('portPressure() passes on that ports ran out between samples', () => {
    const { monitors, told } = setUp();
    const base = { atMs: 0, backendId: 'nvas/127.0.0.11', sourceAddress: '127.0.0.2', used: 0, available: 0 };
    monitors.portPressure({ type: 'source-port-pressure', pressure: 'exhausted', ...base });
    monitors.observe(sample(0), probedState([A]));
    assert.deepEqual(told(), ['raised SnatPortExhaustion nvas/127.0.0.11']);
    monitors.stop();
  });
});
