"""All fixtures."""

from tests.inference.engines import gateways, llamacpp, ollama, openai, vllm
from tests.inference.engines.fixture import Fixture, Refusal

ALL: tuple[Fixture, ...] = (
    *openai.FIXTURES,
    *llamacpp.FIXTURES,
    *ollama.FIXTURES,
    *vllm.FIXTURES,
    *gateways.FIXTURES,
)

REFUSALS: tuple[Refusal, ...] = (
    *openai.REFUSALS,
    *llamacpp.REFUSALS,
    *ollama.REFUSALS,
    *vllm.REFUSALS,
    *gateways.REFUSALS,
)
