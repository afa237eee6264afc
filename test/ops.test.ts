import { readdirSync } from 'node:fs';
import { runSpec, type OpSpec } from './support/spec.js';

// Every op's spec: parity with its oracle, gradients, thread counts. One op: npx ava test/ops.test.ts -m 'combine*'
const folder = new URL('specs/', import.meta.url);
const files = readdirSync(folder).sort();
const modules = await Promise.all(files.map((file) => import(new URL(file, folder).href)));
// ava wants all tests registered in one turn.
for (const { spec } of modules as { spec: OpSpec }[]) runSpec(spec);
