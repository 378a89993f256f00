"""LangChain: an answer piece by piece, and a tool."""

import os

from langchain_core.tools import tool
from langchain_openai import ChatOpenAI
from pydantic import SecretStr

model = ChatOpenAI(
    base_url=os.environ["WEIR_URL"] + "/v1",
    api_key=SecretStr(os.environ["WEIR_API_KEY"]),
    model=os.environ["WEIR_MODEL"],
)


@tool
def get_weather(city: str) -> str:
    """The weather of a city."""
    return f"It rains in {city}."


for piece in model.stream("Good morning!"):
    print(piece.text, end="", flush=True)
print()

for call in model.bind_tools([get_weather]).invoke("Oslo").tool_calls:
    print(get_weather.invoke(call["args"]))
