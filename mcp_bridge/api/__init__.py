"""Door for OpenAI clients: auth, chat, completions, models, forward, and the SSE stream."""
