/**
 * Cuts a text after line ends into pieces of about `length` characters (more where no cut is possible): only between
 * a single line feed and a letter. There a byte-level tokenizer with GPT-2's pattern always separates words, so that
 * the ids of the pieces are together the ids of the text.
 */
export function* linePieces(text: string, length: number): Generator<string> {
  const cut = /\P{White_Space}\n(?=\p{L})/gu;
  let from = 0;
  while (text.length - from > length) {
    cut.lastIndex = from + length;
    if (cut.exec(text) === null) break;
    yield text.slice(from, cut.lastIndex);
    from = cut.lastIndex;
  }
  yield text.slice(from);
}
