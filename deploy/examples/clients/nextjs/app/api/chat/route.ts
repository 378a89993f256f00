// A route handler of Next.js (app/api/chat/route.ts): the browser asks it, it asks Weir, and the key stays on the server.
import { createOpenAICompatible } from '@ai-sdk/openai-compatible'
import { convertToModelMessages, streamText } from 'ai'

// Longer than a model thinks: where Next.js is hosted, this is when the function is ended.
export const maxDuration = 300

const weir = createOpenAICompatible({
  name: 'weir',
  baseURL: `${process.env.WEIR_URL}/v1`,
  apiKey: process.env.WEIR_API_KEY,
})

export async function POST(request: Request): Promise<Response> {
  const { messages } = await request.json()
  const result = streamText({
    model: weir(process.env.WEIR_MODEL!),
    messages: await convertToModelMessages(messages),
    abortSignal: request.signal, // a closed page frees its place at once
  })
  return result.toUIMessageStreamResponse()
}
