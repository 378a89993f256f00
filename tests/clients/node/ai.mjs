// Vercel's AI SDK, by its provider for OpenAI's language or for Anthropic's: `node ai.mjs SCENE openai|anthropic`.
import { createAnthropic } from '@ai-sdk/anthropic'
import { createOpenAICompatible } from '@ai-sdk/openai-compatible'
import * as ai from 'ai'
import { z } from 'zod'
import { apiKey, firstThree, model as name, play, told, url } from './scenes.mjs'

const providers = {
  openai: () => createOpenAICompatible({ name: 'weir', baseURL: `${url}/v1`, apiKey, supportsStructuredOutputs: true }),
  anthropic: () => createAnthropic({ baseURL: `${url}/v1`, apiKey }),
}
const model = providers[process.argv[3]]()(name)
const prompt = 'hello there'
const schema = z.object({ name: z.string(), people: z.number().int().min(1) })
const tools = { get_weather: ai.tool({ description: 'The weather of a city.', inputSchema: z.object({ city: z.string() }) }) }
const cities = (calls) => calls.map((call) => call.input.city)

await play({
  async answer() {
    const answer = await ai.generateText({ model, prompt })
    return { text: answer.text, tokens: answer.usage.outputTokens }
  },
  async leave() {
    const left = new AbortController()
    const pieces = await firstThree(ai.streamText({ model, prompt, abortSignal: left.signal }).textStream, (text) => text)
    left.abort()
    return pieces
  },
  async tools() {
    const whole = await ai.generateText({ model, prompt, tools })
    const said = ai.streamText({ model, prompt, tools })
    return [cities(whole.toolCalls), cities(await said.toolCalls)]
  },
  async object() {
    return (await ai.generateObject({ model, prompt, schema })).object
  },
  async object_in_parts() {
    const stream = ai.streamObject({ model, prompt, schema })
    for await (const part of stream.partialObjectStream) void part
    return stream.object
  },
  async loop() {
    const weather = { ...tools.get_weather, execute: async ({ city }) => `it rains in ${city}` }
    const stopWhen = ai.stepCountIs(3)
    return { text: (await ai.generateText({ model, prompt: 'Oslo', tools: { get_weather: weather }, stopWhen })).text }
  },
  async twice() {
    const ask = async () => (await ai.generateText({ model, prompt })).text
    return [await ask(), await ask()]
  },
  async stream_error() {
    // A stream of theirs does not throw: it has a part that says what happened.
    for await (const part of ai.streamText({ model, prompt, onError() {} }).fullStream) {
      if (part.type === 'error') return told(part.error)
    }
    return {}
  },
})
