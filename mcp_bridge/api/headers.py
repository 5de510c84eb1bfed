"""The headers of a request, for the doors of OpenAI clients."""

from collections.abc import Iterable


class Headers(dict[str, str]):
    """Headers by their names in lower case; of one that came several times, the first.

    Starlette's go through all of them at each look, and a chat looks for ten: 60,000 instructions.
    """

    def __init__(self, raw: Iterable[tuple[bytes, bytes]]) -> None:
        self.pairs = [(name.decode("latin-1"), value.decode("latin-1")) for name, value in raw]
        """Each as often as it came, in order."""
        super().__init__(reversed(self.pairs))

    def each(self, name: str) -> list[str]:
        """All values of a header."""
        return [value for found, value in self.pairs if found == name] if name in self else []
