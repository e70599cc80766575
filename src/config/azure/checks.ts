import type { AzureCheck } from './context.js';
import { checkV1, checkV2, checkV3, checkV4, checkV5, checkV6, checkV8, checkV9 } from './ha-ports.js';
import { checkV11, checkV12, checkV13 } from './probes.js';
import { checkV14, checkV15 } from './timeouts.js';
import { checkV10, checkV16, checkV17, checkV18, checkV19, checkV20, checkV7 } from './topology.js';

/** Azure's HA-ports rules, in the order of their numbers. */
export const AZURE_CHECKS: readonly AzureCheck[] = [
  checkV1,
  checkV2,
  checkV3,
  checkV4,
  checkV5,
  checkV6,
  checkV7,
  checkV8,
  checkV9,
  checkV10,
  checkV11,
  checkV12,
  checkV13,
  checkV14,
  checkV15,
  checkV16,
  checkV17,
  checkV18,
  checkV19,
  checkV20,
];
