/**
 * Padme (Nikitin and others, "Reducing Metadata Leakage from Encrypted Files and Communication with PURBs", 2019):
 * lengths are rounded up so that only about log log of them can be told apart, at a cost of at most 12 %.
 */

/**
 * The length to pad `length` bytes to: its binary form keeps as many leading digits as the length has digits in its
 * exponent, and is zero after them.
 * @throws RangeError unless 0 <= length < 2^31
 */
export function padmeLength(length: number): number {
  if (!Number.isInteger(length) || length < 0 || length >= 2 ** 31)
    throw new RangeError(`${length} is not a length that can be padded`);
  if (length < 2) return length;
  const exponent = 31 - Math.clz32(length);
  const exponentDigits = 32 - Math.clz32(exponent);
  const step = 2 ** (exponent - exponentDigits);
  return Math.ceil(length / step) * step;
}
