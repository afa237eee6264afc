import test from 'ava';
import { manText } from '../bench/abilities/man-text.js';

test('the text of a manual page has no macros and no escapes', (t) => {
  const page = String.raw`.\" a comment
.TH LS 1 "März 2023"
.SH BEZEICHNUNG
ls \- Verzeichnis\(hyinhalte auflisten
.PP
Die Option \fB\-a\fP und \f[I]Datei\f[] \[lq]hier\[rq].
.B "fetter Text"
.if n .nop nichts
\&.punkt \en`;
  t.is(
    manText(page),
    'BEZEICHNUNG\nls - Verzeichnis-inhalte auflisten\n\nDie Option -a und Datei “hier”.\nfetter Text\n.punkt \\n',
  );
});
