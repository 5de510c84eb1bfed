"""Finding an inference server, with scripted ones."""

import pytest

from mcp_bridge.demo.finder import HOSTED, LOCAL, Candidate, candidates, choose, search
from tests.fakes import Item, ScriptedInference, closed_port, hang, page, whole


def at(server: ScriptedInference, key: str | None = None, seconds: float = 10) -> Candidate:
    return Candidate("x", server.base_url, key, seconds=seconds)


@pytest.mark.parametrize(
    ("environ", "first"),
    [
        ({"OPENAI_BASE_URL": "http://x/v1/", "OPENAI_API_KEY": "k"}, ("http://x/v1", "k")),
        ({"OPENAI_BASE_URL": "http://x/v1"}, ("http://x/v1", None)),
        ({"OPENAI_API_KEY": "k"}, (HOSTED, "k")),
        ({"OPENAI_BASE_URL": "", "OPENAI_API_KEY": ""}, ("http://127.0.0.1:11434/v1", None)),
    ],
)
def test_what_the_environment_names_comes_first(
    environ: dict[str, str], first: tuple[str, str | None]
) -> None:
    found = candidates(environ)
    assert (found[0].base_url, found[0].api_key) == first
    assert found[-4:] == LOCAL


def test_the_usual_ports_are_asked_in_this_order() -> None:
    assert [(one.name, one.base_url.split(":")[2]) for one in LOCAL] == [
        ("Ollama", "11434/v1"),
        ("LM Studio", "1234/v1"),
        ("llama.cpp", "8080/v1"),
        ("vLLM", "8000/v1"),
    ]


async def test_the_first_in_order_with_a_model_is_taken_and_gets_the_key() -> None:
    async with (
        ScriptedInference(models=()) as empty,
        ScriptedInference(models=("a", "b")) as first,
        ScriptedInference(models=("c",)) as second,
    ):
        found = (await search([at(empty), at(first, key="k"), at(second)])).found
    assert found is not None
    assert (found.candidate.base_url, found.model) == (first.base_url, "a")
    assert first.others[0].headers["authorization"] == "Bearer k"
    assert "authorization" not in second.others[0].headers


@pytest.mark.parametrize(
    ("answer", "problem"),
    [
        (page(status=200), "lists no model for chats"),
        (page(status=502), "status 502"),
        (whole({"error": {}}, status=401), "status 401"),
        (whole([]), "lists no model for chats"),
        (whole({"data": [{"id": 5}, "x", {"id": "nomic-embed-text"}]}), "lists no model for chats"),
        (hang(), "no answer"),
    ],
)
async def test_a_server_that_cannot_be_used_is_passed_over_with_the_reason(
    answer: Item, problem: str
) -> None:
    async with ScriptedInference() as broken, ScriptedInference(models=("m",)) as good:
        broken.models = answer
        seconds = 0.2 if problem == "no answer" else 10
        result = await search([at(broken, seconds=seconds), at(good)])
    assert result.found is not None
    assert result.found.candidate.base_url == good.base_url
    assert problem in result.named_but_useless[0].problem


@pytest.mark.parametrize("url", ["http://127.0.0.1:{port}/v1", "nonsense", "http://[", "ftp://x"])
async def test_where_nobody_answers_nothing_is_found(url: str) -> None:
    with closed_port() as port:
        result = await search([Candidate("x", url.format(port=port), "key")])
    assert result.found is None
    assert "cannot be asked" in result.named_but_useless[0].problem
    assert "key" not in result.named_but_useless[0].problem


@pytest.mark.parametrize(
    ("models", "wanted", "chosen"),
    [
        (["nomic-embed-text", "bge-reranker-v2", "llama3.2"], None, "llama3.2"),
        (["whisper-1", "tts-1", "dall-e-3", "gpt-4o-mini-tts", "gpt-4.1"], None, "gpt-4.1"),
        (["gpt-3.5-turbo", "gpt-4o-mini", "gpt-5-mini"], None, "gpt-5-mini"),
        (["qwen2.5-7b-instruct", "other"], None, "qwen2.5-7b-instruct"),
        (["a", "b"], "b", "b"),
        (["a", "b"], "c", "a"),
        (["text-embedding-3-small"], None, None),
        (["scripted-demo", "scripted-demo@files"], None, None),
        ([], None, None),
    ],
)
def test_a_model_that_chats_is_chosen(
    models: list[str], wanted: str | None, chosen: str | None
) -> None:
    assert choose(models, wanted) == chosen
