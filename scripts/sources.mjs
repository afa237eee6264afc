// Prints the C++ sources below folders, one a line, for binding.gyp: the same folders that CMakeLists.txt globs.
// Usage: node scripts/sources.mjs [--recursive] [--except FILE] FOLDER...
import { readdirSync } from 'node:fs';
import { join } from 'node:path';
import { parseArgs } from 'node:util';

const { values, positionals } = parseArgs({
  options: {
    recursive: { type: 'boolean', default: false },
    except: { type: 'string', multiple: true, default: [] },
  },
  allowPositionals: true,
});

for (const folder of positionals) {
  for (const name of readdirSync(folder, { recursive: values.recursive }).sort()) {
    const path = join(folder, String(name)).replaceAll('\\', '/');
    if (path.endsWith('.cc') && !values.except.includes(path)) console.log(path);
  }
}
