// One scene of a client: `node openai.mjs SCENE` plays it and prints what it saw, as JSON.

export const url = process.env.WEIR_URL
export const apiKey = process.env.WEIR_API_KEY
export const model = process.env.WEIR_MODEL

/** What a client's error says, whatever its class. */
export function told(error) {
  const cause = error.lastError ?? error
  return { error: cause.constructor.name, status: cause.status ?? cause.statusCode, message: cause.message }
}

export async function play(scenes) {
  const scene = scenes[process.argv[2]]
  let seen
  try {
    seen = await scene()
  } catch (error) {
    seen = told(error)
  }
  process.stdout.write(JSON.stringify(seen))
}

/** The first three pieces of a stream that never ends by itself. */
export async function firstThree(stream, text) {
  const pieces = []
  for await (const piece of stream) {
    const said = text(piece)
    if (said) pieces.push(said)
    if (pieces.length === 3) break
  }
  return pieces
}
