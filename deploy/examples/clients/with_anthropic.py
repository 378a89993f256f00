"""Anthropic's SDK, for whichever model: an answer piece by piece, and a tool."""

import os

from anthropic import Anthropic

MODEL = os.environ["WEIR_MODEL"]

# Without /v1: this SDK adds it. The key may also be given as `auth_token`.
client = Anthropic(base_url=os.environ["WEIR_URL"], api_key=os.environ["WEIR_API_KEY"])

with client.messages.stream(
    model=MODEL, max_tokens=256, messages=[{"role": "user", "content": "Good morning!"}]
) as stream:
    for text in stream.text_stream:
        print(text, end="", flush=True)
print()

answer = client.messages.create(
    model=MODEL,
    max_tokens=256,
    messages=[{"role": "user", "content": "Oslo"}],
    tools=[
        {
            "name": "get_weather",
            "description": "The weather of a city.",
            "input_schema": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
        }
    ],
)
for block in answer.content:
    if block.type == "tool_use":
        print(block.name, block.input)
