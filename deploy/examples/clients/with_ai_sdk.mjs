// Vercel's AI SDK: an answer piece by piece, and a loop with a tool.
import { createOpenAICompatible } from '@ai-sdk/openai-compatible'
import { generateText, stepCountIs, streamText, tool } from 'ai'
import { z } from 'zod'

const weir = createOpenAICompatible({
  name: 'weir',
  baseURL: `${process.env.WEIR_URL}/v1`,
  apiKey: process.env.WEIR_API_KEY,
  includeUsage: true, // streams of this provider report no usage unless they are told to
  supportsStructuredOutputs: true,
})
const model = weir(process.env.WEIR_MODEL)

for await (const piece of streamText({ model, prompt: 'Good morning!' }).textStream) process.stdout.write(piece)
console.log()

const weather = tool({
  description: 'The weather of a city.',
  inputSchema: z.object({ city: z.string() }),
  execute: async ({ city }) => `It rains in ${city}.`,
})
const { text } = await generateText({ model, prompt: 'Oslo', tools: { weather }, stopWhen: stepCountIs(3) })
console.log(text)
