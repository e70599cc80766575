/*
 * Pieces of lines that conntrack writes. No regular expressions: there are tens of thousands of lines a second in a
 * storm.
 */

/** Texts that V8 copies when it cuts them out, instead of keeping the whole they were cut from. */
const COPIED_ANYWAY = 12;

/** What stands there up to the next space. */
export function word(line: string, start: number): string {
  const end = line.indexOf(' ', start);
  return line.slice(start, end < 0 ? line.length : end);
}

/** The decimal number that starts there; 0 if none does. */
export function number(line: string, start: number): number {
  let value = 0;
  for (let index = start; index < line.length; index++) {
    const digit = line.charCodeAt(index) - 0x30;
    if (digit < 0 || digit > 9) break;
    value = value * 10 + digit;
  }
  return value;
}

/** A text of its own, not a window on a longer one. */
export function copied(text: string): string {
  return text.length <= COPIED_ANYWAY ? text : Buffer.from(text, 'latin1').toString('latin1');
}
