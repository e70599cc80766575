/** design.md "Command line": the same for every command. */
export const EXIT = { fine: 0, failed: 1, badInput: 2, gateExceeded: 3 } as const;

export type ExitCode = (typeof EXIT)[keyof typeof EXIT];
