"""Sources laid over each other: a later one wins, objects merge deeply (pydantic-settings)."""

from dataclasses import dataclass, field
from typing import Any

from pydantic.fields import FieldInfo
from pydantic_settings import BaseSettings, InitSettingsSource, PydanticBaseSettingsSource

from mcp_bridge.config.shape import Path
from mcp_bridge.types import Json


@dataclass(frozen=True, slots=True)
class Layer:
    """What one source says. `origins` name the variable that a path came from."""

    label: str
    data: Json
    origins: dict[Path, str] = field(default_factory=dict)

    def origin_of(self, path: Path) -> str | None:
        """Where that path was set, None when this layer does not set it."""
        here: Any = self.data
        for step in path:
            if isinstance(here, dict) and step in here:
                here = here[step]
            elif isinstance(here, list) and isinstance(step, int) and step < len(here):
                here = here[step]
            else:
                return None
        for at, name in self.origins.items():
            shared = min(len(at), len(path))
            if at[:shared] == path[:shared]:
                return name
        return self.label


@dataclass(slots=True)
class Notes:
    """What came up while one source was read; every line begins with the source's name."""

    label: str = ""
    warnings: list[str] = field(default_factory=list)
    mistakes: list[str] = field(default_factory=list)

    def warn(self, text: str) -> None:
        self.warnings.append(f"{self.label}: {text}")

    def mistake(self, text: str) -> None:
        self.mistakes.append(f"{self.label}: {text}")


def merge(*layers: Json) -> Json:
    """One object from several; the last one wins where two say something else."""
    return _Merged(layers=layers).whole  # type: ignore[call-arg]  # read by its customised sources


class _Source(PydanticBaseSettingsSource):
    def __init__(self, settings_cls: type[BaseSettings], layer: Json) -> None:
        super().__init__(settings_cls)
        self.layer = layer

    def get_field_value(self, field: FieldInfo, field_name: str) -> tuple[Any, str, bool]:
        return self.layer, field_name, False

    def __call__(self) -> Json:
        return {"whole": self.layer}


class _Merged(BaseSettings):
    whole: Json = {}

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        *others: PydanticBaseSettingsSource,
        **more: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """The layers, and nothing else: pydantic-settings wants the strongest first."""
        if not isinstance(init_settings, InitSettingsSource):
            raise TypeError("pydantic-settings no longer hands the init arguments over")
        layers: tuple[Json, ...] = init_settings.init_kwargs["layers"]
        return tuple(_Source(settings_cls, layer) for layer in reversed(layers))
