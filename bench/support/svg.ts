/** A line chart as SVG, without dependencies. */
export interface Series {
  name: string;
  points: readonly (readonly [x: number, y: number])[];
}

export interface Chart {
  title: string;
  xLabel: string;
  yLabel: string;
  series: readonly Series[];
  /** Which axes go by powers of two. With 'x', y begins at 0. Default: none. */
  logarithmic?: 'x' | 'y' | 'both';
  /** Points without lines between them. */
  scattered?: boolean;
  /** In which of the upper corners the names of the series are. Default: right. */
  legend?: 'left' | 'right';
}

const WIDTH = 360;
const HEIGHT = 260;
const MARGIN = { left: 58, right: 14, top: 30, bottom: 44 };
const COLOURS = [
  '#1f77b4',
  '#d62728',
  '#2ca02c',
  '#9467bd',
  '#ff7f0e',
  '#8c564b',
  '#e377c2',
  '#7f7f7f',
  '#bcbd22',
  '#17becf',
];
const TICKS = 5;

interface Axis {
  at: (value: number) => number;
  ticks: number[];
}

function axis(values: readonly number[], [from, to]: readonly [number, number], logarithmic: boolean): Axis {
  const scale = logarithmic ? Math.log2 : (x: number) => x;
  const [low, high] = [Math.min(...values), Math.max(...values)].map(scale) as [number, number];
  const span = high - low || 1;
  const step = logarithmic ? Math.max(1, Math.ceil(span / TICKS)) : niceStep(span / TICKS);
  const ticks: number[] = [];
  for (let t = Math.ceil(low / step) * step; t <= high + 1e-9; t += step)
    ticks.push(logarithmic ? 2 ** t : t);
  return { at: (value) => from + ((scale(value) - low) / span) * (to - from), ticks };
}

function niceStep(rough: number): number {
  const power = 10 ** Math.floor(Math.log10(rough));
  return power * ([1, 2, 5, 10].find((factor) => factor * power >= rough) ?? 10);
}

const escape = (text: string): string =>
  text.replace(/[&<>]/g, (c) => ({ '&': '&amp;', '<': '&lt;', '>': '&gt;' })[c] ?? c);

const format = (value: number): string => String(Number(value.toPrecision(5)));

function draw({
  title,
  xLabel,
  yLabel,
  series,
  logarithmic,
  scattered = false,
  legend = 'right',
}: Chart): string {
  const points = series.flatMap((each) => each.points);
  const [left, right, top, bottom] = [MARGIN.left, WIDTH - MARGIN.right, MARGIN.top, HEIGHT - MARGIN.bottom];
  const [xs, ys] = [points.map(([value]) => value), points.map(([, value]) => value)];
  const x = axis(xs, [left, right], logarithmic === 'x' || logarithmic === 'both');
  const y = axis(
    logarithmic === 'x' ? [0, ...ys] : ys,
    [bottom, top],
    logarithmic === 'y' || logarithmic === 'both',
  );
  const parts = [
    `<text x="${WIDTH / 2}" y="16" text-anchor="middle" font-weight="bold">${escape(title)}</text>`,
    `<text x="${(left + right) / 2}" y="${HEIGHT - 8}" text-anchor="middle">${escape(xLabel)}</text>`,
    `<text transform="translate(12 ${(top + bottom) / 2}) rotate(-90)" text-anchor="middle">${escape(yLabel)}</text>`,
  ];
  for (const tick of x.ticks) {
    const at = x.at(tick).toFixed(1);
    parts.push(`<path d="M${at} ${top}V${bottom}" stroke="#ddd"/>`);
    parts.push(`<text x="${at}" y="${bottom + 14}" text-anchor="middle">${format(tick)}</text>`);
  }
  for (const tick of y.ticks) {
    const at = y.at(tick).toFixed(1);
    parts.push(`<path d="M${left} ${at}H${right}" stroke="#ddd"/>`);
    parts.push(`<text x="${left - 5}" y="${Number(at) + 4}" text-anchor="end">${format(tick)}</text>`);
  }
  series.forEach(({ name, points: line }, i) => {
    const colour = COLOURS[i % COLOURS.length] as string;
    const path = line.map(([a, b]) => `${x.at(a).toFixed(1)} ${y.at(b).toFixed(1)}`).join('L');
    if (!scattered) parts.push(`<path d="M${path}" fill="none" stroke="${colour}" stroke-width="1.5"/>`);
    for (const [a, b] of line)
      parts.push(`<circle cx="${x.at(a).toFixed(1)}" cy="${y.at(b).toFixed(1)}" r="2" fill="${colour}"/>`);
    if (series.length > 1)
      parts.push(
        `<text x="${legend === 'left' ? left + 4 : right - 4}" y="${top + 14 + 14 * i}" ` +
          `text-anchor="${legend === 'left' ? 'start' : 'end'}" fill="${colour}">${escape(name)}</text>`,
      );
  });
  return parts.join('\n');
}

/** The charts side by side, three in a row. */
export function svgOf(charts: readonly Chart[]): string {
  const columns = Math.min(3, charts.length);
  const [width, height] = [columns * WIDTH, Math.ceil(charts.length / columns) * HEIGHT];
  const cells = charts.map((chart, i) => {
    const [x, y] = [(i % columns) * WIDTH, Math.floor(i / columns) * HEIGHT];
    return `<g transform="translate(${x} ${y})">\n${draw(chart)}\n</g>`;
  });
  return (
    `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 ${width} ${height}" width="${width}" height="${height}" ` +
    `font-family="sans-serif" font-size="11">\n<rect width="100%" height="100%" fill="white"/>\n` +
    `${cells.join('\n')}\n</svg>\n`
  );
}
