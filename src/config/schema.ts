import { z } from 'zod';
import { integerField, tableSizeField } from './fields.js';
import { frontendSchema } from './schema-frontend.js';
import { backendPoolSchema } from './schema-pool.js';
import { probeSchema } from './schema-probe.js';
import {
  adminSchema,
  dataPlaneSchema,
  eventsSchema,
  flowLogSchema,
  limitsSchema,
  loggingSchema,
  metricsSchema,
  shutdownSchema,
} from './schema-process.js';
import { ruleSchema } from './schema-rule.js';

/** The lists of named things, and the schema of one element of each. */
export const LIST_SCHEMAS = {
  frontends: frontendSchema,
  probes: probeSchema,
  backendPools: backendPoolSchema,
  rules: ruleSchema,
} as const;

/**
 * The shape of the whole configuration; what it parses to has addresses, durations and port sets as values. What
 * hangs together across keys is checked afterwards, so that one mistake does not hide the others.
 */
export const configSchema = z
  .strictObject({
    $schema: z.string().describe('Where the JSON Schema is, for editors. Not read').exactOptional(),
    compat: z
      .enum(['none', 'azure'])
      .describe('azure: what Azure would refuse is an error, not a note')
      .default('none'),
    seed: integerField(0, 4_294_967_295)
      .describe('Seed of the hash. Instances that are to choose alike need the same one')
      .default(0),
    tableSize: tableSizeField(655373)
      .describe(
        'Slots of a Maglev table; prime. At least 100 for each backend spread flows evenly to about 1 %. The kernel data plane has its own',
      )
      .default(65537),
    dataPlane: dataPlaneSchema.prefault({}),
    frontends: z.array(frontendSchema).describe('Addresses where flows arrive'),
    probes: z.array(probeSchema).describe('Health checks').prefault([]),
    backendPools: z.array(backendPoolSchema).describe('Sets of backends'),
    rules: z.array(ruleSchema).describe('What is balanced over what'),
    limits: limitsSchema.prefault({}),
    logging: loggingSchema.prefault({}),
    flowLog: flowLogSchema.exactOptional(),
    metrics: metricsSchema.exactOptional(),
    admin: adminSchema.exactOptional(),
    events: eventsSchema.exactOptional(),
    shutdown: shutdownSchema.prefault({}),
  })
  .describe('Configuration of haports');

export type ConfigInput = z.output<typeof configSchema>;
