// OpenAI's SDK for JavaScript.
import OpenAI from 'openai'
import { zodResponseFormat, zodTextFormat } from 'openai/helpers/zod'
import { z } from 'zod'
import { apiKey, firstThree, model, play, url } from './scenes.mjs'

const client = new OpenAI({ baseURL: `${url}/v1`, apiKey })
const messages = [{ role: 'user', content: 'hello there' }]
const parameters = { type: 'object', properties: { city: { type: 'string' } }, required: ['city'] }
const tools = [{ type: 'function', function: { name: 'get_weather', parameters } }]
const town = z.object({ name: z.string(), people: z.number().int().min(1) })
const cities = (calls) => calls.map((call) => JSON.parse((call.function ?? call).arguments).city)

await play({
  async answer() {
    const answer = await client.chat.completions.create({ model, messages })
    return { text: answer.choices[0].message.content, tokens: answer.usage.completion_tokens }
  },
  async leave() {
    return firstThree(
      await client.chat.completions.create({ model, messages, stream: true }),
      (chunk) => chunk.choices[0].delta.content,
    )
  },
  async tools() {
    const whole = await client.chat.completions.create({ model, messages, tools })
    const said = []
    for await (const chunk of await client.chat.completions.create({ model, messages, tools, stream: true })) {
      for (const call of chunk.choices[0].delta.tool_calls ?? []) {
        said[call.index] = (said[call.index] ?? '') + (call.function.arguments ?? '')
      }
    }
    return [cities(whole.choices[0].message.tool_calls), said.map((text) => JSON.parse(text).city)]
  },
  async object() {
    const answer = await client.chat.completions.parse({ model, messages, response_format: zodResponseFormat(town, 'town') })
    return answer.choices[0].message.parsed
  },
  async twice() {
    const ask = async () => (await client.chat.completions.create({ model, messages })).choices[0].message.content
    return [await ask(), await ask()]
  },
  async responses_answer() {
    const answer = await client.responses.create({ model, input: 'hello there' })
    return { text: answer.output_text, tokens: answer.usage.output_tokens }
  },
  async responses_leave() {
    const stream = await client.responses.create({ model, input: 'hello there', stream: true })
    return firstThree(stream, (event) => event.type === 'response.output_text.delta' && event.delta)
  },
  async responses_tools() {
    const flat = [{ type: 'function', name: 'get_weather', parameters, strict: false }]
    const whole = await client.responses.create({ model, input: 'weather?', tools: flat })
    const said = await client.responses.stream({ model, input: 'weather?', tools: flat }).finalResponse()
    return [whole, said].map((answer) => cities(answer.output.filter((item) => item.type === 'function_call')))
  },
  async responses_object() {
    const answer = await client.responses.parse({ model, input: 'hello there', text: { format: zodTextFormat(town, 'town') } })
    return answer.output_parsed
  },
})
