export * from './core/port.ts'
