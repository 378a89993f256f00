"""OpenAI's SDK: an answer piece by piece, one in a form, and what a limit says."""

import os

from openai import OpenAI, RateLimitError
from pydantic import BaseModel

MODEL = os.environ["WEIR_MODEL"]

# It waits as long as a 429 says, and tries again; `max_retries` says how often.
client = OpenAI(base_url=os.environ["WEIR_URL"] + "/v1", api_key=os.environ["WEIR_API_KEY"], max_retries=5)


class Greeting(BaseModel):
    words: str
    friendly: bool


try:
    with client.chat.completions.create(
        model=MODEL, messages=[{"role": "user", "content": "Good morning!"}], stream=True
    ) as stream:
        for chunk in stream:
            if chunk.choices:
                print(chunk.choices[0].delta.content or "", end="", flush=True)
    print()

    answer = client.chat.completions.parse(
        model=MODEL, messages=[{"role": "user", "content": "Good evening!"}], response_format=Greeting
    )
    print(answer.choices[0].message.parsed)

    # The same by OpenAI's newer language.
    print(client.responses.create(model=MODEL, input="Good night!").output_text)
except RateLimitError as refused:
    # Which limit, how much of it is left, and when to come again.
    print(refused.code, refused.message, refused.response.headers.get("retry-after"))
