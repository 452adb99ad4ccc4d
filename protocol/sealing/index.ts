/** Sealing, as agents and whoever restores use it. docs/sealing.md is the format; protocol/vectors/ tests another implementation. */
export { type Chunker, type ChunkSizes, chunkSizesFor, chunksOf, createChunker } from './chunker.ts';
export { readSealedHeader, type SealedHeader, type SealedType } from './header.ts';
export { type KeyInKey, readKeyInKey, unwrapKeyInKey, wrapKeyInKey } from './key-in-key.ts';
export { readWrappedGeneration, unwrapKey, type WrapOptions, wrapBounds, wrapKey } from './key-wrap.ts';
export { type Keyring, makeKeyring, verifyVersionOf } from './keyring.ts';
export { deriveKeys, keyCheck, type VaultKeys, vaultKeyBytes } from './keys.ts';
export { padmeLength } from './padme.ts';
export { sealedBounds } from './payload.ts';
export { open, openAsync, type SealAs, type SealExpected, seal, sealAsync, sealOverheadBytes } from './seal.ts';
export { SealError, type SealReason, sealReasons } from './seal-error.ts';
export { type MacVersion, verifyVersionMac, versionMac } from './version-mac.ts';
