import { execFileSync } from 'node:child_process';
import { cpSync, existsSync, mkdirSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { dirname, join, resolve } from 'node:path';

export interface Manifest {
  name: string;
  version: string;
  files?: string[];
  optionalDependencies?: Record<string, string>;
  [field: string]: unknown;
}

export function readManifest(file: string): Manifest {
  return JSON.parse(readFileSync(file, 'utf8')) as Manifest;
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

/** Compiles lib/, lays the main package out in a folder and packs it into another. */
export function packMain(folder: string, destination: string): void {
  rmSync('dist', { recursive: true, force: true });
  execFileSync('npm', ['run', '--silent', 'build:ts'], { stdio: 'inherit' });
  rmSync(folder, { recursive: true, force: true });
  mkdirSync(folder, { recursive: true });
  const manifest = readManifest('package.json');
  for (const file of manifest.files ?? []) {
    if (!existsSync(file)) continue;
    mkdirSync(join(folder, dirname(file)), { recursive: true });
    cpSync(file, join(folder, file), { recursive: true });
  }
  const published = publishedManifest(manifest, platformPackages());
  writeFileSync(join(folder, 'package.json'), `${JSON.stringify(published, null, 2)}\n`);
  execFileSync('npm', ['pack', '--silent', '--pack-destination', resolve(destination)], {
    cwd: folder,
    stdio: 'inherit',
  });
}
