"""Chat in Messages' words: the client speaks chat completions, the model's server Anthropic's API."""
