import { execFileSync } from 'node:child_process';
import {
  cpSync,
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  writeFileSync,
} from 'node:fs';
import { createRequire } from 'node:module';
import { dirname, join, resolve } from 'node:path';

export interface Manifest {
  name: string;
  version: string;
  files?: string[];
  optionalDependencies?: Record<string, string>;
  [field: string]: unknown;
}

/** Packed bytes that a package may have at most: what users download. docs/packages.md states them. */
export const MOST_BYTES = { main: 700_000, cpu: 3_000_000, cuda: 20_000_000 };

export function readManifest(file: string): Manifest {
  return JSON.parse(readFileSync(file, 'utf8')) as Manifest;
}

export function writeManifest(folder: string, manifest: Manifest): void {
  writeFileSync(join(folder, 'package.json'), `${JSON.stringify(manifest, null, 2)}\n`);
}

/** The packages that npm can choose by system and processor: all but those for GPUs. */
export function platformPackages(): string[] {
  return readdirSync('npm').filter((name) => !name.endsWith('-cuda'));
}

const CLONE_ONLY = ['scripts', 'devDependencies', 'ava', 'prettier'];

/** The manifest that is published: without what only a clone needs, with the platforms' packages of this version. */
export function publishedManifest(manifest: Manifest, platforms: readonly string[]): Manifest {
  const prebuilt = Object.fromEntries(platforms.map((name) => [`@moduleformer/${name}`, manifest.version]));
  const kept = Object.entries(manifest).filter(([field]) => !CLONE_ONLY.includes(field));
  return {
    ...(Object.fromEntries(kept) as Manifest),
    optionalDependencies: { ...manifest.optionalDependencies, ...prebuilt },
  };
}

/** What runs a tool of node_modules or npm, on Windows too, where their commands are scripts for a shell. */
export function tool(name: 'npm' | 'cmake-js'): [command: string, ...args: string[]] {
  if (name === 'cmake-js') {
    return [process.execPath, createRequire(import.meta.url).resolve('cmake-js/bin/cmake-js')];
  }
  const npm = process.env['npm_execpath'];
  return npm === undefined ? ['npm'] : [process.execPath, npm];
}

/** Runs a command and shows what it prints. */
export function run([command, ...args]: [command: string, ...args: string[]], cwd = '.'): void {
  execFileSync(command, args, { cwd, stdio: ['ignore', 'inherit', 'inherit'] });
}

/** Packs a folder into another one. @throws Error when the package is larger than it may be; it is removed then. */
export function pack(folder: string, destination: string, most: number): void {
  const [command, ...args] = tool('npm');
  const packing = [...args, 'pack', '--silent', '--pack-destination', resolve(destination)];
  const output = execFileSync(command, packing, { cwd: folder, encoding: 'utf8' });
  const file = join(destination, output.trim().split('\n').at(-1) ?? '');
  const { size } = statSync(file);
  if (size > most) {
    rmSync(file);
    throw new Error(`${file} is not kept: ${size} bytes, expected at most ${most}`);
  }
  console.log(`${file}: ${size} bytes`);
}

/** Compiles lib/, lays the main package out in a folder and packs it into another. */
export function packMain(folder: string, destination: string): void {
  rmSync('dist', { recursive: true, force: true });
  run([...tool('npm'), 'run', '--silent', 'build:ts']);
  rmSync(folder, { recursive: true, force: true });
  mkdirSync(folder, { recursive: true });
  const manifest = readManifest('package.json');
  for (const file of manifest.files ?? []) {
    if (!existsSync(file)) continue;
    mkdirSync(join(folder, dirname(file)), { recursive: true });
    cpSync(file, join(folder, file), { recursive: true });
  }
  writeManifest(folder, publishedManifest(manifest, platformPackages()));
  pack(folder, destination, MOST_BYTES.main);
}
