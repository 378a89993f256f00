"""Pydantic AI: an agent with a tool, and an answer in a form."""

import os

from pydantic import BaseModel
from pydantic_ai import Agent
from pydantic_ai.models.openai import OpenAIChatModel
from pydantic_ai.providers.openai import OpenAIProvider

provider = OpenAIProvider(base_url=os.environ["WEIR_URL"] + "/v1", api_key=os.environ["WEIR_API_KEY"])
model = OpenAIChatModel(os.environ["WEIR_MODEL"], provider=provider)
agent = Agent(model)


class Greeting(BaseModel):
    words: str
    friendly: bool


@agent.tool_plain
def get_weather(city: str) -> str:
    """The weather of a city."""
    return f"It rains in {city}."


print(agent.run_sync("Oslo").output)
print(Agent(model, output_type=Greeting).run_sync("Good evening!").output)
