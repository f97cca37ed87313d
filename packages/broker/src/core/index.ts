/** The pure core of the broker. Its one importer is the runtime (and what tests it). */
export { createCore } from './core.ts'
export * from './port.ts'
export { bringsWork, classOf, WORK_CLASSES, type WorkClass } from './overload.ts'
