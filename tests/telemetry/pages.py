"""The page of metrics, as a scraper reads it."""

from prometheus_client.parser import text_string_to_metric_families

from mcp_bridge.telemetry.metrics import Metrics

Labels = dict[str, str]


def read(metrics: Metrics, name: str, servers: Labels | None = None) -> list[tuple[Labels, float]]:
    """The samples of that name on the page, as a scraper reads them."""
    metrics.tell()
    page = metrics.page(servers or {}).decode()
    return [
        (sample.labels, sample.value)
        for family in text_string_to_metric_families(page)
        for sample in family.samples
        if sample.name == name
    ]


def value(metrics: Metrics, name: str, **labels: str) -> float:
    return sum(n for found, n in read(metrics, name) if labels.items() <= found.items())
