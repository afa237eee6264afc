// npm run bench:charts -- REPORT.json...: prints the tables of bench/RESULTS.md, and writes the pictures of the sections
// scaling and curves beside it.
import { readFile, writeFile } from 'node:fs/promises';
import { parseReport } from '../support/compare.js';
import { markdownTable } from '../support/markdown.js';
import type { Section } from '../support/measure.js';
import { svgOf, type Chart } from '../support/svg.js';

type Rows = Section['rows'];

function scaling(rows: Rows): Chart[] {
  const axes = [...new Set(rows.map(({ axis }) => String(axis)))].filter((axis) => axis !== 'threads');
  return axes.map((axis) => {
    const own = rows.filter((row) => row['axis'] === axis);
    const points = own.map((row) => [Number(row['value']), Number(row['ms a pass'])] as const);
    return {
      title: `cost against ${axis}`,
      xLabel: axis,
      yLabel: 'ms a pass',
      series: [{ name: axis, points }],
      logarithmic: axis === 'N' || axis === 'D' ? 'both' : 'x',
    };
  });
}

function curves(rows: Rows): Chart[] {
  const of = (column: string): (readonly [number, number])[] =>
    rows.map((row) => [Number(String(row['steps']).split('-')[1]), Number(row[column])] as const);
  const series = ['f32', 'bf16'].map((name) => ({ name, points: of(`loss, ${name}`) }));
  return [{ title: 'loss in f32 and bf16', xLabel: 'steps', yLabel: 'nats a byte', series }];
}

const charts: Record<string, (rows: Rows) => Chart[]> = { scaling, curves };

for (const file of process.argv.slice(2)) {
  const { sections } = parseReport(await readFile(file, 'utf8'), file);
  for (const section of sections) {
    const { name, rows } = section;
    console.log(`${name}\n\n${markdownTable(rows)}`);
    const kind = name.split(':')[0] ?? '';
    const draw = charts[kind];
    if (draw) await writeFile(new URL(`../${kind}.svg`, import.meta.url), svgOf(draw(rows)));
  }
}
