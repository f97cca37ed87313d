export const name: string = 'xmq-worker'
