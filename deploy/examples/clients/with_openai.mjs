// OpenAI's SDK for JavaScript: an answer piece by piece, and what a limit says.
import OpenAI from 'openai'

const model = process.env.WEIR_MODEL

// It waits as long as a 429 says, and tries again; `maxRetries` says how often.
const client = new OpenAI({ baseURL: `${process.env.WEIR_URL}/v1`, apiKey: process.env.WEIR_API_KEY, maxRetries: 5 })

try {
  const stream = await client.chat.completions.create({
    model,
    messages: [{ role: 'user', content: 'Good morning!' }],
    stream: true,
  })
  for await (const chunk of stream) process.stdout.write(chunk.choices[0]?.delta.content ?? '')
  console.log()
} catch (error) {
  if (!(error instanceof OpenAI.RateLimitError)) throw error
  // Which limit, how much of it is left, and when to come again.
  console.log(error.code, error.message, error.headers.get('retry-after'))
}
