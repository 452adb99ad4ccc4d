/**
 * Unit tests sit beside the code; what spans folders is under tests/. Service tests need Debian packages and run apart, and
 * so does what takes minutes (`npm run test:long`).
 */
const services = process.env.HOLDFAST_TEST_SERVICES === '1';

export default {
  testEnvironment: 'node',
  extensionsToTreatAsEsm: ['.ts'],
  transform: { '^.+\\.ts$': ['@swc/jest', { jsc: { target: 'es2024', parser: { syntax: 'typescript' } } }] },
  testMatch: services ? ['**/*.services.test.ts'] : ['**/*.test.ts'],
  testPathIgnorePatterns: services ? ['/node_modules/'] : ['/node_modules/', '\\.(services|long)\\.test\\.ts$'],
  testTimeout: 60_000,
  // Many tests mostly wait, for processes and PostgreSQL: one more than the processors of the smallest machine.
  maxWorkers: 3,
};
