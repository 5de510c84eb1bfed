"""Time zones by the names that people and models use: `Asia/Tokyo`, `tokyo`, `New York`, `NYC`."""

import zoneinfo
from collections.abc import Mapping
from difflib import get_close_matches
from functools import cache
from types import MappingProxyType
from zoneinfo import ZoneInfo

AREAS = frozenset(
    "Africa America Antarctica Arctic Asia Atlantic Australia Europe Indian Pacific".split()
)
"""The first part of a zone's name, where the last one is a city or an island."""

OTHER_PLACES = {
    "Africa/Johannesburg": ("cape town", "south africa"),
    "Africa/Lagos": ("nigeria",),
    "Africa/Nairobi": ("kenya",),
    "America/Argentina/Buenos_Aires": ("argentina",),
    "America/Chicago": ("austin", "dallas", "houston"),
    "America/Los_Angeles": ("california", "san francisco", "seattle", "silicon valley"),
    "America/New_York": ("atlanta", "boston", "miami", "nyc", "philadelphia", "washington"),
    "America/Sao_Paulo": ("brazil", "rio de janeiro"),
    "America/Toronto": ("montreal", "ottawa"),
    "Asia/Dubai": ("abu dhabi", "uae"),
    "Asia/Kolkata": ("bangalore", "bengaluru", "chennai", "delhi", "india", "mumbai", "new delhi"),
    "Asia/Seoul": ("korea", "south korea"),
    "Asia/Shanghai": ("beijing", "china", "shenzhen"),
    "Asia/Tokyo": ("kyoto", "osaka"),
    "Australia/Sydney": ("canberra",),
    "Europe/Amsterdam": ("netherlands",),
    "Europe/Berlin": ("cologne", "frankfurt", "germany", "hamburg", "munich"),
    "Europe/Brussels": ("belgium",),
    "Europe/London": ("britain", "england", "scotland", "uk"),
    "Europe/Madrid": ("barcelona", "spain"),
    "Europe/Paris": ("france", "lyon"),
    "Europe/Rome": ("italy", "milan", "naples"),
    "Europe/Stockholm": ("sweden",),
    "Europe/Vienna": ("austria",),
    "Europe/Zurich": ("geneva", "switzerland"),
}
"""Large places whose zone has another place's name."""


class UnknownZone(ValueError):
    """There is no such time zone. The message names the close ones."""


def find(name: str) -> ZoneInfo:
    """The time zone with that name, or of the place with that name.

    Raises:
        UnknownZone: there is none.
    """
    key = places().get(plain(name))
    if key is None:
        raise UnknownZone(_unknown(name))
    return ZoneInfo(key)


@cache
def places() -> Mapping[str, str]:
    """Every known name in plain spelling, with the zone's key. A zone's own name always wins."""
    available = zoneinfo.available_timezones()
    keys = sorted(available)
    named = {plain(place): key for key, others in OTHER_PLACES.items() for place in others}
    named |= {plain(city): key for key in keys if (city := city_of(key))}
    named |= {plain(key): key for key in keys}
    return MappingProxyType({name: key for name, key in named.items() if key in available})


def city_of(key: str) -> str | None:
    """The city in a zone's key: `New York` for `America/New_York`, None for `UTC` or `Etc/GMT`."""
    area, slash, rest = key.partition("/")
    return rest.rpartition("/")[2].replace("_", " ") if slash and area in AREAS else None


def plain(name: str) -> str:
    return " ".join(name.replace("_", " ").casefold().split())


def _unknown(name: str) -> str:
    if not places():
        return "this machine has no time zone data; install the Python package tzdata"
    close = get_close_matches(plain(name), places(), n=5, cutoff=0.7)
    keys = list(dict.fromkeys(places()[match] for match in close))[:3]
    hint = f"did you mean {' or '.join(keys)}?" if keys else "use a name such as Europe/Berlin"
    return f"there is no time zone {name[:100]!r}; {hint}"
