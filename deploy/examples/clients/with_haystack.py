"""Haystack: an answer piece by piece, and a tool."""

import os
from typing import Annotated

from haystack.components.generators.chat import OpenAIChatGenerator
from haystack.components.generators.utils import print_streaming_chunk
from haystack.dataclasses import ChatMessage
from haystack.tools import create_tool_from_function
from haystack.utils import Secret


def get_weather(city: Annotated[str, "its name"]) -> str:
    """The weather of a city."""
    return f"It rains in {city}."


weather = create_tool_from_function(get_weather)
generator = OpenAIChatGenerator(
    api_base_url=os.environ["WEIR_URL"] + "/v1",
    api_key=Secret.from_env_var("WEIR_API_KEY"),
    model=os.environ["WEIR_MODEL"],
)

generator.run([ChatMessage.from_user("Good morning!")], streaming_callback=print_streaming_chunk)

(reply,) = generator.run([ChatMessage.from_user("Oslo")], tools=[weather])["replies"]
for call in reply.tool_calls:
    print(weather.invoke(**call.arguments))
