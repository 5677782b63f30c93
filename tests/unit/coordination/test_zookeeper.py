"""What a coordination_url says, and what is wrong with it."""

from __future__ import annotations

import pytest

from towline.coordination.zookeeper import Ensemble


@pytest.mark.parametrize(
    ("url", "hosts", "path", "shown"),
    [
        ("zk://a,b:2182/t", "a:2181,b:2182", "/t", "zk://a:2181,b:2182/t"),
        ("zk://u:p%40@a/x/y/", "a:2181", "/x/y", "zk://u@a:2181/x/y"),
        (
            "zk://[fd00::1],[fd00::2]:5/t",
            "[fd00::1]:2181,[fd00::2]:5",
            "/t",
            "zk://[fd00::1]:2181,[fd00::2]:5/t",
        ),
    ],
)
def test_what_it_says(url: str, hosts: str, path: str, shown: str) -> None:
    found = Ensemble(url)
    assert (found.hosts, found.path, str(found)) == (hosts, path, shown)


def test_a_password_may_have_any_sign() -> None:
    assert Ensemble("zk://u:p%40%3A@a/x").login == ("u", "p@:")


@pytest.mark.parametrize(
    ("url", "says"),
    [
        ("", "begins with no scheme"),
        ("http://a/t", "begins with 'http'"),
        ("zk://a,,b/t", "'' is no HOST"),
        ("zk://a:b:c/t", "is no HOST"),
        ("zk://secret@a/t", "needs a password"),
        ("zk://u:secret/x@a/t", "escape what is special"),
        ("zk://a", "name the path"),
        ("zk://a/", "name the path"),
        ("zk://a/t?x=1", "and no more"),
    ],
)
def test_what_is_wrong_is_named(url: str, says: str) -> None:
    with pytest.raises(ValueError, match="coordination_url has to be like zk://HOST1") as failure:
        Ensemble(url)
    assert says in str(failure.value)
    assert "secret" not in str(failure.value)
