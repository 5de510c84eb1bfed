"""What the demo tells people: what it has found, and how to connect their own clients."""

from collections.abc import Sequence

from mcp_bridge.demo.finder import LOCAL, Answered, Search
from mcp_bridge.demo.model import MODEL

NONE_FOUND = f"""\
No inference server answers here ({", ".join(candidate.name for candidate in LOCAL)}), so the
built-in model answers: {MODEL}. It is no language model, only a few rules for times,
arithmetic and notes, but it really calls the tools. To use a real model, start one of these
servers or set OPENAI_BASE_URL (and OPENAI_API_KEY, OPENAI_MODEL), and run the demo again."""


def about_search(search: Search) -> str:
    """Which inference server is used, and what the environment names in vain."""
    lines = [about_useless(answer) for answer in search.named_but_useless]
    lines.append(about_found(search.found) if search.found else NONE_FOUND)
    return "\n".join(lines)


def about_useless(answer: Answered) -> str:
    return f"{answer.candidate.name} is set, but the server there cannot be used: {answer.problem}."


def about_found(answer: Answered) -> str:
    candidate = answer.candidate
    return (
        f"Inference server: {candidate.name} (found by {candidate.why}), "
        f"with the model {answer.model}."
    )


def about_servers(states: Sequence[tuple[str, str]]) -> str:
    """The MCP servers and how each is."""
    return f"MCP servers: {', '.join(f'{name} ({state})' for name, state in states)}."


def connect(base_url: str, model: str, *, stays: bool) -> str:
    """How to use the bridge, which stays up or would."""
    state = "The bridge is running, and" if stays else "Without --once the bridge stays up, and"
    return f"""\
{state} any OpenAI client can use it with any text as its API key:

  base URL   {base_url}
  model      {model}

curl
  curl {base_url}/chat/completions -H 'Content-Type: application/json' \\
    -d '{{"model": "{model}", "messages": [{{"role": "user", "content": "What is 6 * 7?"}}]}}'

openai SDK (Python)
  from openai import OpenAI
  client = OpenAI(base_url="{base_url}", api_key="any")
  answer = client.chat.completions.create(
      model="{model}", messages=[{{"role": "user", "content": "What time is it in Lima?"}}]
  )
  print(answer.choices[0].message.content)

Open WebUI
  Admin Panel > Settings > Connections > OpenAI API > +
  URL {base_url}   Key any
  (From a container, 127.0.0.1 is the container itself: run it with --network=host.)

LM Studio
  As the inference server: start its server (Developer tab, port 1234) with a model that can
  call tools, and run the demo again: it is found by itself. Then point your clients to the
  bridge's base URL above instead of http://127.0.0.1:1234/v1.
  As an MCP client: Program > Install > Edit mcp.json, and the bridge is one server of its own:
  {{"mcpServers": {{"bridge": {{"url": "{base_url.removesuffix("/v1")}/mcp"}}}}}}
"""
