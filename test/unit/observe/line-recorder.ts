import type { EventLine, IngressMode } from '../../../src/model/events.js';
import { EventBus } from '../../../src/observe/bus.js';

/** A bus, and the lines of what is emitted on it. */
export class LineRecorder {
  readonly bus = new EventBus();
  readonly lines: EventLine[] = [];

  constructor(ingress: IngressMode = 'port-sockets') {
    this.bus.onLine(ingress, [(line) => this.lines.push(line)]);
  }

  /** `level message` of all but debug lines. */
  get texts(): readonly string[] {
    return this.lines
      .filter(({ level }) => level !== 'debug')
      .map(({ level, message }) => `${level} ${message}`);
  }

  /** `level type {fields} message` of each line. */
  get golden(): readonly string[] {
    return this.lines.map(
      ({ level, type, fields, message }) => `${level} ${type} ${JSON.stringify(fields)} ${message}`,
    );
  }
}
