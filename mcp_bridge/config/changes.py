"""What differs between two configurations: what a reload has to start, stop, or leave alone."""

from dataclasses import dataclass

from mcp_bridge.config.settings import Settings


@dataclass(frozen=True, slots=True)
class Changes:
    """MCP servers by name, the other sections that changed, and what only a restart changes."""

    added: tuple[str, ...] = ()
    removed: tuple[str, ...] = ()
    changed: tuple[str, ...] = ()
    unchanged: tuple[str, ...] = ()
    sections: tuple[str, ...] = ()
    restart: tuple[str, ...] = ()

    def __bool__(self) -> bool:
        """Whether anything changed."""
        return bool(self.added or self.removed or self.changed or self.sections)

    def __str__(self) -> str:
        """One line for the log."""
        parts = {
            "added": self.added,
            "removed": self.removed,
            "changed": self.changed,
            "other sections": self.sections,
            "restart to change": self.restart,
        }
        words = [f"{what} {', '.join(names)}" for what, names in parts.items() if names]
        return "; ".join(words) or "nothing changed"


def diff(old: Settings, new: Settings) -> Changes:
    """What has to happen to come from the old settings to the new ones."""
    before, after = old.mcp_servers, new.mcp_servers
    kept = [name for name in after if name in before]
    sections = [name for name in Settings.model_fields if name != "mcp_servers"]
    return Changes(
        added=tuple(name for name in after if name not in before),
        removed=tuple(name for name in before if name not in after),
        changed=tuple(name for name in kept if before[name] != after[name]),
        unchanged=tuple(name for name in kept if before[name] == after[name]),
        sections=tuple(name for name in sections if getattr(old, name) != getattr(new, name)),
        restart=tuple(
            f"network.{name}"
            for name in type(new.network).model_fields
            if getattr(old.network, name) != getattr(new.network, name)
        ),
    )
