import { defineConfig } from 'vitest/config'

// Tests run on the sources: each package's private `@xmq/source` export condition points at src/index.ts.
const sources = { resolve: { conditions: ['@xmq/source'] }, ssr: { resolve: { conditions: ['@xmq/source'] } } }

const unit = (name: string) => ({
  ...sources,
  test: {
    name,
    root: `packages/${name}`,
    include: ['test/**/*.test.ts'],
    testTimeout: 15_000,
  },
})

export default defineConfig({
  ...sources,
  test: {
    projects: [
      unit('protocol'),
      unit('broker'),
      unit('client'),
      unit('testing'),
      unit('xmq'),
      unit('xmq-worker'),
      {
        ...sources,
        test: {
          name: 'simulation',
          root: 'test',
          include: ['simulation/**/*.test.ts'],
          testTimeout: 600_000,
          // All that the machine has: Vitest leaves one core to itself, which does nothing here.
          maxWorkers: '100%',
          // A run keeps all that happened in it until its end: that is not to be copied to the old generation meanwhile.
          execArgv: ['--max-semi-space-size=32'],
        },
      },
      {
        ...sources,
        test: {
          name: 'e2e',
          root: 'test',
          include: ['e2e/**/*.test.ts'],
          testTimeout: 60_000,
          hookTimeout: 60_000,
          fileParallelism: false,
        },
      },
      { ...sources, test: { name: 'faults', root: 'test', include: ['faults/**/*.test.mjs'] } },
      { ...sources, test: { name: 'docs', root: 'test', include: ['docs/**/*.test.ts'], testTimeout: 60_000 } },
    ],
  },
})
