/** A line of a file; undefined text: it is longer than any that can be read. */
export interface NumberedLine {
  /** From 1. */
  readonly number: number;
  readonly text: string | undefined;
}

/** The longest line that is held: a configuration of 100,000 backends has room. In UTF-16 units. */
const MOST_LENGTH = 64 * 1024 * 1024;

/**
 * UTF-8 text cut into lines, many at a time, blank ones left out. The last may lack its line feed. Holds one line at
 * most: of one longer than `mostLength` only the number is given.
 */
export async function* splitLines(
  chunks: AsyncIterable<Uint8Array>,
  mostLength: number = MOST_LENGTH,
): AsyncGenerator<readonly NumberedLine[]> {
  const decoder = new TextDecoder();
  let number = 1;
  let rest = '';
  let tooLong = false;
  const take = (end: string): NumberedLine | undefined => {
    const text = tooLong || rest.length + end.length > mostLength ? undefined : rest + end;
    rest = '';
    tooLong = false;
    const line = { number: number++, text };
    return text?.trim() === '' ? undefined : line;
  };
  for await (const chunk of chunks) {
    const parts = decoder.decode(chunk, { stream: true }).split('\n');
    const last = parts.pop() ?? '';
    const lines = parts.map(take).filter((line) => line !== undefined);
    tooLong ||= rest.length + last.length > mostLength;
    rest = tooLong ? '' : rest + last;
    if (lines.length > 0) yield lines;
  }
  const line = rest === '' && !tooLong ? undefined : take(decoder.decode());
  if (line !== undefined) yield [line];
}
