import type { CompilerInputs } from '../control/forwarding-compiler.js';

/** Where no process is asked: every probe up, admin states as configured, nobody draining. */
export const ALL_UP: CompilerInputs = {
  health: () => ({ state: 'up' }),
  adminState: ({ adminState }) => adminState,
  draining: () => false,
};
