import type { HttpBindings } from '@hono/node-server';
import type { Logger } from '../../runtime/logger.js';
import type { EventStreams } from '../event-stream.js';
import type { Operations } from '../operations.js';

/** What the server gives each request along; nothing where a test asks the routes themselves. */
export interface AdminEnv {
  readonly Bindings: Partial<HttpBindings>;
}

/** What the routes show and do; they own none of it. */
export interface AdminRoutesDependencies {
  readonly operations: Operations;
  readonly streams: EventStreams;
  readonly logger: Logger;
}
