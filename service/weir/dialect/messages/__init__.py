"""Messages in chat's words: the client speaks Anthropic's API, the model's server chat completions."""
