import { Argument, type Command } from 'commander';
import { KERNEL_ACTIONS, kernelCommand, type KernelOptions } from './kernel-command.js';
import { KERNEL_HELP } from './help-texts.js';
import type { Registration } from './register-local.js';

/** The command about what capture and the kernel data plane keep in the kernel. */
export function registerKernelCommand(program: Command, { deps, done }: Registration): void {
  program
    .command('kernel')
    .description(
      'show what capture or the kernel data plane would write into the kernel, or remove what is left there',
    )
    .addArgument(new Argument('<action>', 'what to do').choices(KERNEL_ACTIONS))
    .option('-c, --config <file>', 'configuration file, for ruleset', 'config.json')
    .option('--full', 'ruleset with every element', false)
    .option('--instance <name>', 'whose leftovers to flush (default: haports)')
    .addHelpText('after', KERNEL_HELP)
    .action(async (action: (typeof KERNEL_ACTIONS)[number], options: KernelOptions) =>
      done(await kernelCommand(deps, action, options)),
    );
}
