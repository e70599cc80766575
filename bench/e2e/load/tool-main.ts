/**
 * Frame of a load tool: options from its first argument, one line of JSON as answer, `{"error"}` when it failed.
 * The process lives until its standard input ends, so that it never outlives the bench.
 */
export async function runAsTool(work: (options: unknown) => Promise<object>): Promise<void> {
  process.stdin.on('end', () => process.kill(process.pid, 'SIGKILL')).resume();
  try {
    const answer = await work(JSON.parse(process.argv[2] ?? '{}'));
    process.stdout.write(`${JSON.stringify(answer)}\n`);
  } catch (error) {
    process.stdout.write(`${JSON.stringify({ error: String(error) })}\n`);
    process.exitCode = 1;
  }
}
