"""Where webhooks may go."""

from __future__ import annotations

import ipaddress

import pytest

from towline.server.webhooks.targets import Targets

PRIVATE = [
    "10.0.0.1",
    "192.168.1.1",
    "172.16.0.1",
    "100.64.0.1",
    "fd00::1",
    "::ffff:10.0.0.1",
    "64:ff9b::a00:1",
]
OWN = ["127.0.0.1", "::1", "169.254.169.254", "fe80::1", "0.0.0.0", "::", "224.0.0.1", "::ffff:127.0.0.1"]
PUBLIC = ["8.8.8.8", "2606:4700::1111"]


def allowed(targets: Targets, host: str, address: str) -> bool:
    return targets.refusal_of_address(host, ipaddress.ip_address(address)) is None


@pytest.mark.parametrize("address", PRIVATE + OWN)
def test_what_is_not_public_is_blocked_by_default(address: str) -> None:
    assert not allowed(Targets(), "hook.example.org", address)
    host = f"[{address}]" if ":" in address else address
    assert Targets().refusal_of_url(f"https://{host}/x") is not None


@pytest.mark.parametrize("address", PUBLIC)
def test_what_is_public_is_allowed_by_default_over_https(address: str) -> None:
    assert allowed(Targets(), "hook.example.org", address)
    assert Targets().refusal_of_url("https://hook.example.org/x") is None
    assert Targets().refusal_of_url("http://hook.example.org/x") is not None


@pytest.mark.parametrize(
    ("listed", "url", "taken"),
    [
        (["ci.lan"], "http://ci.lan/x", True),
        (["CI.lan"], "http://Ci.LAN:8080/x", True),
        (["ci.lan"], "https://x.ci.lan/", False),
        (["ci.lan"], "https://example.org/", False),
        (["*.lan"], "https://ci.lan/", True),
        (["*.lan"], "https://lan/", False),
        (["*.lan"], "https://ci.xlan/", False),
        (["10.0.0.0/8"], "http://10.1.2.3/", True),
        (["10.0.0.0/8"], "http://192.168.0.1/", False),
        (["10.0.0.0/8"], "http://ci.lan/", True),  # its address decides
        (["127.0.0.1"], "http://127.0.0.1:1/", True),
        (["127.0.0.1"], "http://[::ffff:127.0.0.1]/", True),
    ],
)
def test_a_list_says_where_they_go(listed: list[str], url: str, taken: bool) -> None:
    assert (Targets(listed).refusal_of_url(url) is None) == taken


@pytest.mark.parametrize("address", PRIVATE + PUBLIC)
def test_a_listed_name_may_have_any_address_of_another_machine(address: str) -> None:
    assert allowed(Targets(["ci.lan"]), "ci.lan", address)
    assert not allowed(Targets(["ci.lan"]), "other.lan", address)
    assert not allowed(Targets(["10.9.9.0/24"]), "ci.lan", address)


@pytest.mark.parametrize("address", OWN)
def test_a_listed_name_leads_to_this_machine_only_where_its_address_is_listed(address: str) -> None:
    assert not allowed(Targets(["ci.lan"]), "ci.lan", address)
    assert allowed(Targets(["ci.lan", address.removeprefix("::ffff:")]), "ci.lan", address)


@pytest.mark.parametrize("entry", ["", "*", "https://x", "a b", "*.*.x", "x/y"])
def test_what_is_no_target_is_named(entry: str) -> None:
    with pytest.raises(ValueError, match="webhook_targets has"):
        Targets([entry])
