import { systemClock } from '../runtime/clock.js';
import { watchFile } from '../runtime/file-watch.js';
import { readChunks, systemFileChanges, systemFiles } from '../runtime/files.js';
import type { CliDeps, ProcessSignal } from './cli-deps.js';
import { createTerminal } from './terminal.js';

const SIGNALS: readonly ProcessSignal[] = ['SIGINT', 'SIGTERM', 'SIGHUP', 'SIGUSR2'];

/** What commands need of this process: its streams, signals, environment, files and clock. */
export function processDeps(): Omit<CliDeps, 'load' | 'startBalancer' | 'kernel' | 'doctor'> {
  return {
    out: (text) => void process.stdout.write(text),
    err: (text) => void process.stderr.write(text),
    onSignal(listener) {
      for (const signal of SIGNALS) process.on(signal, listener);
      return () => {
        for (const signal of SIGNALS) process.off(signal, listener);
      };
    },
    onOutputClosed(listener) {
      process.stdout.on('error', listener);
      return () => process.stdout.off('error', listener);
    },
    env: process.env,
    clock: systemClock,
    readText: (path) => systemFiles.readText(path),
    readChunks,
    watchFile: (path, onChange) =>
      watchFile({ clock: systemClock, files: systemFiles, changes: systemFileChanges }, path, onChange),
    terminal: createTerminal({
      output: process.stdout,
      input: process.stdin,
      env: process.env,
      onExit(listener) {
        process.once('exit', listener);
        return () => process.off('exit', listener);
      },
    }),
  };
}
