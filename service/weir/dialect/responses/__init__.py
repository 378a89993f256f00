"""Responses in chat's words: the client speaks OpenAI's newer API, the model's server chat completions."""
