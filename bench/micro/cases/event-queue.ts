import { EventQueue } from '../../../src/flows/event-queue.js';
import type { PlaneEvent } from '../../../src/model/events.js';
import { systemClock } from '../../../src/runtime/clock.js';
import type { MicroBench } from '../micro-bench.js';

export const EVENT_QUEUE: readonly MicroBench[] = [
  {
    name: 'event queue: push, with its share of handing on',
    prepare() {
      const queue = new EventQueue(systemClock);
      let handedOn = 0;
      queue.subscribe((events) => (handedOn += events.length));
      const event: PlaneEvent = {
        type: 'passive-failure',
        atMs: 0,
        backendId: 'nvas/10.0.0.1',
        evidence: 'ECONNREFUSED',
      };
      return {
        run(iterations) {
          for (let i = 0; i < iterations; i++) queue.push(event);
          queue.flush();
          return handedOn;
        },
      };
    },
  },
  {
    name: 'event queue: drop of an overload that goes on',
    prepare() {
      const queue = new EventQueue(systemClock);
      return {
        run(iterations) {
          for (let i = 0; i < iterations; i++) queue.dropped('table-full');
          return iterations;
        },
      };
    },
  },
];
