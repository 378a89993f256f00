"""LlamaIndex: an answer piece by piece, and a tool."""

import os

from llama_index.core.llms import ChatMessage
from llama_index.core.tools import FunctionTool
from llama_index.llms.openai_like import OpenAILike

# `OpenAILike` and not `OpenAI`, which knows the names of OpenAI's own models and no others.
llm = OpenAILike(
    api_base=os.environ["WEIR_URL"] + "/v1",
    api_key=os.environ["WEIR_API_KEY"],
    model=os.environ["WEIR_MODEL"],
    is_chat_model=True,
    is_function_calling_model=True,
)


def get_weather(city: str) -> str:
    """The weather of a city."""
    return f"It rains in {city}."


for piece in llm.stream_chat([ChatMessage("Good morning!")]):
    print(piece.delta, end="", flush=True)
print()

print(llm.predict_and_call([FunctionTool.from_defaults(get_weather)], "Oslo"))
