import { execFileSync } from 'node:child_process';

/** The newest versions of the C and C++ library that a binary asks for. */
export interface Floors {
  glibc?: string;
  glibcxx?: string;
}

/** Reads the versions of the symbols that a shared library takes from others. */
export function floorsOf(file: string): Required<Floors> {
  return floorsIn(execFileSync('objdump', ['-T', file], { encoding: 'utf8' }));
}

/** As floorsOf, from what `objdump -T` prints. */
export function floorsIn(symbols: string): Required<Floors> {
  return { glibc: newest(symbols, 'GLIBC'), glibcxx: newest(symbols, 'GLIBCXX') };
}

function newest(symbols: string, library: string): string {
  const versions = [...symbols.matchAll(new RegExp(`\\b${library}_([0-9.]+)`, 'g'))].map(
    ([, found]) => found ?? '',
  );
  return versions.sort(compareVersions).at(-1) ?? '0';
}

function compareVersions(a: string, b: string): number {
  return a.localeCompare(b, 'en', { numeric: true });
}

/** What a binary needs beyond a recorded claim; nothing when none is recorded. */
export function findRaised(recorded: Floors, found: Floors): string[] {
  return (['glibc', 'glibcxx'] as const).flatMap((name) => {
    const before = recorded[name];
    const now = found[name];
    if (before === undefined || now === undefined || compareVersions(now, before) <= 0) return [];
    return [`it needs ${name} ${now}, the last one needed ${before}`];
  });
}
