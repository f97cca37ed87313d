/** What other packages use of the worker author's CLI; the commands themselves are in main.ts. */
export { main, type MainOptions } from './main.ts'
export { type CreatedProject, createProject, type ProjectRequest } from './project.ts'
