import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { logDescriptorShortage, logListening } from '../../../src/observe/event-text.js';
import { RecordingLogger } from './recording-logger.js';

const COST = {
  listeners: { tcp: 10, udp: 9 },
  entry: 'port-sockets',
  durationMs: 1234,
  workers: 8,
  tcpPorts: 'owned',
} as const;

void describe('lines of a start', () => {
  test('logListening() tells ports, time, memory, and how workers have TCP ports', () => {
    const logger = new RecordingLogger();
    logListening(logger, { ...COST, memory: { processes: 9, bytes: 100 * 1024 * 1024 } });
    assert.deepEqual(logger.lines, [
      {
        level: 'info',
        fields: {
          event: 'listening',
          listeners: { tcp: 10, udp: 9 },
          seconds: 1.23,
          tcpPorts: 'owned',
          processes: 9,
          residentBytes: 104_857_600,
        },
        message:
          'Listening on 10 TCP and 9 UDP ports after 1.23 s, 100 MiB resident in 9 processes, ' +
          'each TCP port belongs to one worker',
      },
    ]);
  });

  test('logListening() leaves out what is not known, and what one worker has no choice of', () => {
    const logger = new RecordingLogger();
    logListening(logger, { ...COST, workers: 1, tcpPorts: 'shared' });
    assert.deepEqual(logger.texts, ['info Listening on 10 TCP and 9 UDP ports after 1.23 s']);
  });

  test('logListening() says what is counted where there is no socket a port', () => {
    const logger = new RecordingLogger();
    const cost = { ...COST, workers: 1, listeners: { tcp: 1, udp: 2 } };
    logListening(logger, { ...cost, entry: 'captured' });
    logListening(logger, { ...cost, entry: 'kernel', memory: { processes: 1, bytes: 100 * 1024 * 1024 } });
    assert.deepEqual(logger.texts, [
      'info Listening on 1 TCP and 2 UDP sockets, which get all captured ports, after 1.23 s',
      'info The kernel forwards TCP of 1 frontend and UDP of 2 frontends after 1.23 s, 100 MiB resident in 1 process',
    ]);
  });

  test('logDescriptorShortage() is one error with the numbers and the advice', () => {
    const logger = new RecordingLogger();
    logDescriptorShortage(logger, { limit: 20_000, needed: 145_634, workers: 8 }, 'do this');
    assert.deepEqual(logger.lines, [
      {
        level: 'error',
        fields: { event: 'descriptors-short', limit: 20_000, needed: 145_634, workers: 8 },
        message: 'Not all ports can be listened on: do this',
      },
    ]);
  });
});
