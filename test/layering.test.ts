import { readdir, readFile } from 'node:fs/promises';
import path from 'node:path';
import test from 'ava';

import { findViolations, MAX_LINES } from './support/layering.js';

async function readTree(...directories: string[]): Promise<Map<string, string>> {
  const sources = new Map<string, string>();
  for (const directory of directories) {
    const entries = await readdir(directory, { recursive: true, withFileTypes: true }).catch(
      (error: unknown) => {
        if ((error as NodeJS.ErrnoException).code === 'ENOENT') return [];
        throw error;
      },
    );
    for (const entry of entries.filter((each) => each.isFile())) {
      const file = path.join(entry.parentPath, entry.name);
      sources.set(file.split(path.sep).join('/'), await readFile(file, 'utf8'));
    }
  }
  return sources;
}

test('the tree keeps to the direction of flow, in files of a readable length', async (t) => {
  const sources = await readTree('native', 'cuda', 'lib');
  t.true(sources.has('lib/errors.ts'), 'run from the repository root');
  t.deepEqual(findViolations(sources), []);
});

function violations(file: string, ...lines: string[]): string[] {
  return findViolations(new Map([[file, `${lines.join('\n')}\n`]]));
}

test('planted includes against the arrows are reported with their line', (t) => {
  const planted: [file: string, include: string][] = [
    ['native/core/stream.cc', '#include "ops/ops.h"'],
    ['native/core/stream.cc', '  #  include "cpu/cpu_backend.h"'],
    ['native/core/stream.cc', '#include "../cpu/cpu_backend.h"'],
    ['native/core/stream.cc', '#include <napi.h>'],
    ['native/core/stream.cc', '#include <node_api.h>'],
    ['native/core/stream.cc', '#include <cuda_runtime.h>'],
    ['native/ops/linear.cc', '#include "cpu/gemm/kernel.h"'],
    ['native/ops/linear.cc', '#include "napi/convert.h"'],
    ['native/cpu/gemm/kernel.cc', '#include "ops/ops.h"'],
    ['native/cpu/gemm/kernel.cc', '#include "../../ops/ops.h"'],
    ['native/cpu/gemm/kernel.cc', '#include "../../../cuda/common.cuh"'],
    ['native/cpu/gemm/kernel.cc', '#include "cuda/common.cuh"'],
    ['native/napi/ops.cc', '#include "cpu/cpu_backend.h"'],
    ['native/ops/linear.cc', '#include "cpu/select.h"'],
    ['cuda/gemm.cu', '#include "cpu/simd.h"'],
    ['cuda/gemm.cu', '#include "ops/ops.h"'],
    ['cuda/gemm.cu', '#include <napi.h>'],
    ['native/extra/new.cc', '#include <vector>'],
  ];
  for (const [file, include] of planted) {
    const found = violations(file, '#include <vector>', include);
    t.is(found.length, 1, `${file}: ${include}`);
    if (!file.includes('extra')) t.true(found[0]?.startsWith(`${file}:2: `), found[0]);
  }
});

test('planted imports against the arrows are reported with their line', (t) => {
  const planted: [file: string, statement: string][] = [
    ['lib/errors.ts', "import { Tensor } from './tensor.js';"],
    ['lib/native/load.ts', "import type { Tensor } from '../tensor.js';"],
    ['lib/tensor.ts', "import bindings from 'bindings';"],
    ['lib/model/model.ts', "const addon = require('../../build/Release/moduleformer.node');"],
    ['lib/model/model.ts', "const addon = await import('bindings');"],
    ['lib/autograd/ops.ts', "import { Linear } from '../nn/linear.js';"],
    ['lib/autograd/ops.ts', "export * from '../model/config.js';"],
    ['lib/nn/linear.ts', "import { ModuleFormerConfig } from '../model/config.js';"],
    ['lib/io/safetensors.ts', "import { ModuleFormerConfig } from '../model/config.js';"],
    ['lib/data/loader.ts', "import type { ModuleFormerConfig } from '../model/config.js';"],
    ['lib/data/loader.ts', "import { ModuleFormerConfig } from '../index.js';"],
    ['lib/model/model.ts', "import { Trainer } from '../training/trainer.js';"],
    ['lib/training/trainer.ts', "import { run } from '../cli/main.js';"],
    ['lib/index.ts', "export { run } from './cli/main.js';"],
    ['lib/training/trainer.ts', "import { record } from '../../test/support/record.js';"],
  ];
  for (const [file, statement] of planted) {
    const found = violations(file, "import path from 'node:path';", statement);
    t.is(found.length, 1, `${file}: ${statement}`);
    t.true(found[0]?.startsWith(`${file}:2: `), found[0]);
  }
});

test('a file that is too long is reported', (t) => {
  const lines = Array.from({ length: MAX_LINES }, () => '// line');
  t.deepEqual(violations('native/cpu/long.cc', ...lines), []);
  t.deepEqual(violations('native/cpu/long.cc', ...lines, ''), [
    `native/cpu/long.cc: ${MAX_LINES + 1} lines, more than ${MAX_LINES}`,
  ]);
});

test('what goes with the arrows is not reported', (t) => {
  t.deepEqual(violations('native/core/stream.cc', '#include "core/stream.h"', '#include <vector>'), []);
  t.deepEqual(violations('native/ops/linear.cc', '#include "ops/ops.h"', '#include "core/backend.h"'), []);
  t.deepEqual(violations('native/cpu/linear.cc', '#include "cpu/simd.h"', '#include "kernel.h"'), []);
  t.deepEqual(violations('native/napi/ops.cc', '#include <napi.h>', '#include "cpu/select.h"'), []);
  t.deepEqual(
    violations('cuda/gemm.cu', '#include "../native/core/view.h"', '#include <cuda_runtime.h>'),
    [],
  );
  t.deepEqual(violations('lib/native/load.ts', "import bindings from 'bindings';"), []);
  t.deepEqual(violations('lib/nn/linear.ts', "import { linear } from '../autograd/ops.js';"), []);
  t.deepEqual(violations('lib/model/model.ts', "import { Linear } from '../nn/linear.js';"), []);
  t.deepEqual(violations('lib/cli/main.ts', "import { Trainer } from '../training/trainer.js';"), []);
  t.deepEqual(violations('bench/ops.ts', "import { run } from '../lib/cli/main.js';"), []);
});
