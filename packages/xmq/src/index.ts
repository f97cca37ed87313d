export const name: string = 'xmq'
