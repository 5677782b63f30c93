"""A database's URL: what is refused, and what is shown of it."""

from __future__ import annotations

import pytest

from towline.errors import WrongStore
from towline.store.address import Address
from towline.store.postgresql.connections import connect


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("postgresql://tow@db.lan:5432/tow", "postgresql://tow@db.lan:5432/tow"),
        ("postgres://tow:secret@db.lan/tow", "postgres://tow@db.lan/tow"),
        ("postgresql://tow:sec%40ret@h1:1,h2:2/tow", "postgresql://tow@h1:1,h2:2/tow"),
        (
            "postgresql://db.lan/tow?sslmode=require&password=secret",
            "postgresql://db.lan/tow?sslmode=require",
        ),
        ("postgresql:///tow?host=/run/postgresql", "postgresql:///tow?host=/run/postgresql"),
        ("postgresql://:secret@db.lan/tow", "postgresql://@db.lan/tow"),
    ],
)
def test_no_password_is_shown(url: str, shown: str) -> None:
    address = Address(url)
    assert (str(address), address.url) == (shown, url)
    assert "sec" not in repr(address)


@pytest.mark.parametrize(
    ("url", "said"),
    [
        (
            "mysql://tow:secret@db/tow",
            "store_url begins with 'mysql': write postgresql://USER@HOST:5432/DATABASE",
        ),
        ("/var/lib/secret", "store_url begins with 'no scheme': write postgresql://"),
        ("postgresql://tow:secret@db.lan", "store_url names no database: write postgresql://"),
        ("postgresql://tow:secret@db.lan/tow?x", "store_url is no URL: write postgresql://"),
        ("postgresql://[secret/tow", "store_url is no URL: write postgresql://"),
    ],
)
def test_what_is_no_address_is_refused_in_a_sentence(url: str, said: str) -> None:
    with pytest.raises(ValueError) as refused:
        Address(url)
    assert str(refused.value).startswith(said)
    assert "secret" not in str(refused.value)


@pytest.mark.parametrize("hosts", ["127.0.0.1", "h1,127.0.0.1"])
async def test_what_no_connection_can_be_made_with_is_a_wrong_setting(hosts: str) -> None:
    """No value of a request, and nothing that waiting would mend."""
    address = Address(f"postgresql://tow:secret@{hosts}/tow?sslmode=sometimes")
    with pytest.raises(WrongStore, match=r"store_url cannot be used: .*sslmode") as refused:
        await connect(address)
    assert "secret" not in str(refused.value)


def test_a_drivers_words_lose_the_password() -> None:
    address = Address("postgresql://tow:s3cr%3Fet@db.lan/tow?password=other")
    said = address.without_secrets("no s3cr?et, no other, and no postgres://tow:x@h/d")
    assert said == "no ***, no ***, and no postgres://tow:***@h/d"


@pytest.mark.parametrize(
    ("url", "urls"),
    [
        ("postgresql://tow@h1/tow", ["postgresql://tow@h1/tow"]),
        (
            "postgresql://tow@h1:1,h2/tow?a=b",
            ["postgresql://tow@h1:1/tow?a=b", "postgresql://tow@h2/tow?a=b"],
        ),
        (
            "postgresql://tow@/tow?host=/a,/b&port=7",
            ["postgresql://tow@/tow?host=%2Fa&port=7", "postgresql://tow@/tow?host=%2Fb&port=7"],
        ),
        (
            "postgresql:///tow?host=a,b&port=7,8",
            ["postgresql:///tow?host=a&port=7", "postgresql:///tow?host=b&port=8"],
        ),
    ],
)
def test_every_host_has_a_url_of_its_own(url: str, urls: list[str]) -> None:
    assert Address(url).urls == urls
