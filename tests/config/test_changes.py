"""What differs between two configurations."""

from mcp_bridge.config.changes import Changes, diff
from mcp_bridge.config.settings import Settings
from tests.config.reading import Reader

SERVERS = {
    "same": {"command": "x", "env": {"A": "1"}},
    "gone": {"command": "x"},
    "other": {"command": "x", "env": {"A": "${A:-1}"}},
}
OLD = {"mcp_servers": SERVERS, "network": {"port": 1}}


def test_equal_settings_have_no_changes(read: Reader) -> None:
    changes = diff(read(OLD).settings, read(OLD).settings)
    assert changes == Changes(unchanged=("same", "gone", "other"))
    assert not changes
    assert str(changes) == "nothing changed"


def test_only_what_differs_is_named(read: Reader) -> None:
    servers = {"same": SERVERS["same"], "other": SERVERS["other"], "new": {"url": "http://x"}}
    new = {"mcp_servers": servers, "network": {"port": 2}, "limits": {"max_rounds": 1}}
    changes = diff(read(OLD).settings, read(new, {"A": "2"}).settings)
    assert changes == Changes(
        added=("new",),
        removed=("gone",),
        changed=("other",),
        unchanged=("same",),
        sections=("limits", "network"),
        restart=("network.port",),
    )
    assert changes
    assert str(changes) == (
        "added new; removed gone; changed other; other sections limits, network; "
        "restart to change network.port"
    )


def test_a_server_whose_missing_value_arrived_has_changed(read: Reader) -> None:
    data = {"mcp_servers": {"a": {"command": "x", "env": {"T": "${T}"}}}}
    changes = diff(read(data).settings, read(data, {"T": "t"}).settings)
    assert changes.changed == ("a",)


def test_an_empty_configuration_can_be_compared() -> None:
    assert not diff(Settings(), Settings())
