import { createRequire } from 'node:module';
import type * as NativeTokenizers from 'tokenizers';

export const INSTALL_HINT = "install it with 'npm install tokenizers'";

const require = createRequire(import.meta.url);

/** The path of the optional native package `tokenizers`, or undefined where it is not installed. */
export function nativeTokenizersPath(): string | undefined {
  try {
    return require.resolve('tokenizers');
  } catch {
    return undefined;
  }
}

/**
 * The optional native package `tokenizers` (about twice as fast as the JavaScript one, off the main thread), or
 * undefined where it is not installed or has no binary for this platform.
 */
export function loadNativeTokenizers(): typeof NativeTokenizers | undefined {
  try {
    return require('tokenizers') as typeof NativeTokenizers;
  } catch {
    return undefined;
  }
}
