"""What names a server on another machine, and what is wrong with it."""

from __future__ import annotations

from pathlib import Path

import pytest

from towline.client.cluster.remote import checked_url, from_environment
from towline.errors import RequestError
from towline.identity.joining import parse_join


@pytest.mark.parametrize(
    ("text", "url"),
    [("tow.lan", "https://tow.lan:7443"), ("https://[::1]:20000/", "https://[::1]:20000")],
)
def test_an_address_is_completed(text: str, url: str) -> None:
    assert checked_url(text, "--server") == url


@pytest.mark.parametrize("text", ["https://[::1", "https://h:99999", "http://h", "https://h/x", ""])
def test_what_is_no_address_is_named(text: str) -> None:
    with pytest.raises(RequestError, match=r"--server is .*https://HOST:PORT"):
        checked_url(text, "--server")


@pytest.mark.parametrize("token", ["tow_geheimnis\nrest", "geheimnis\0", "geheimnis-ü"])
def test_a_token_that_cannot_be_sent_is_refused_and_not_shown(token: str, tmp_path: Path) -> None:
    (tmp_path / "ca").write_text("-----BEGIN CERTIFICATE-----\n")
    given = {"TOWLINE_SERVER": "h", "TOWLINE_TOKEN": token, "TOWLINE_CA": str(tmp_path / "ca")}
    with pytest.raises(RequestError, match="TOWLINE_TOKEN is no token") as refused:
        from_environment(given)
    assert "geheimnis" not in str(refused.value)


def test_the_end_of_a_line_is_no_part_of_a_token(tmp_path: Path) -> None:
    (tmp_path / "ca").write_text("-----BEGIN CERTIFICATE-----\n")
    given = {"TOWLINE_SERVER": "h", "TOWLINE_TOKEN": "tow_x\n", "TOWLINE_CA": str(tmp_path / "ca")}
    remote = from_environment(given)
    assert remote is not None
    assert remote.token == "tow_x"


@pytest.mark.parametrize("content", [b"\x30\x82\xff", b"a letter\n", b""])
def test_an_authority_that_is_no_certificate_is_named(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "ca.der").write_bytes(content)
    given = {"TOWLINE_SERVER": "h", "TOWLINE_TOKEN": "x", "TOWLINE_CA": str(tmp_path / "ca.der")}
    with pytest.raises(RequestError, match=r"TOWLINE_CA .*ca\.der is no certificate in PEM"):
        from_environment(given)


def test_a_join_link_whose_host_is_none_is_named() -> None:
    with pytest.raises(RequestError, match="its host is none"):
        parse_join("tow://[::1?token=a&ca=b")
