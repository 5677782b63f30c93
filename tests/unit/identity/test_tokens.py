"""Tokens, roles and join links."""

from __future__ import annotations

import pytest

from towline.errors import RequestError
from towline.identity import tokens
from towline.identity.joining import JoinLink, parse_join
from towline.identity.roles import LOCAL, Principal, Role

CA = "sha256:" + "0a" * 32


def test_a_token_is_genuine_only_as_a_whole() -> None:
    one, two = tokens.mint(), tokens.mint()
    assert tokens.id_of(one.text) == one.id
    assert tokens.is_genuine(one.text, one.digest)
    assert not tokens.is_genuine(two.text, one.digest)
    swapped = one.text.replace(one.id, two.id)
    assert not tokens.is_genuine(swapped, one.digest)
    for wrong in ("", "tow_", one.text[:-1], one.text + "x", one.text.upper(), f" {one.text}", one.id):
        assert not tokens.is_genuine(wrong, one.digest)
        assert tokens.id_of(wrong) is None
    assert one.text not in repr(one)


def test_each_role_may_what_the_one_below_may() -> None:
    def may(role: Role | None) -> list[str]:
        who = Principal(name="x", role=role, namespace="default")
        return [wanted.word for wanted in Role if who.may(wanted)]

    assert may(None) == []
    assert may(Role.VIEWER) == ["viewer"]
    assert may(Role.SUBMITTER) == ["viewer", "submitter"]
    assert may(Role.ADMIN) == ["viewer", "submitter", "admin"]
    assert LOCAL.may(Role.ADMIN)


@pytest.mark.parametrize("host", ["tow.lan", "10.0.0.1", "fd00::1"])
def test_a_join_link_is_read_as_it_was_written(host: str) -> None:
    link = JoinLink(host=host, port=7443, token="tow_1_x-_", ca=CA)
    assert parse_join(str(link)) == link
    assert link.token not in repr(link)


def test_a_port_may_be_left_out() -> None:
    assert parse_join(f"tow://a?token=t&ca={CA}").url == "https://a:7443"


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "does not begin with tow://HOST"),
        (f"https://a?token=t&ca={CA}", "does not begin with tow://HOST"),
        (f"tow://a:99999?token=t&ca={CA}", "port"),
        (f"tow://a?ca={CA}", "token is missing"),
        ("tow://a?token=t", "ca is no sha256"),
        ("tow://a?token=t&ca=sha256:12", "ca is no sha256"),
        (f"tow://a?token=t&ca={CA}&x=1", "'x' is no part"),
    ],
)
def test_a_wrong_join_link_is_explained(text: str, says: str) -> None:
    with pytest.raises(RequestError, match=says) as caught:
        parse_join(text)
    assert "tow token create --join" in str(caught.value)
