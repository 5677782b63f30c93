"""Certificates, over real TLS handshakes in memory."""

from __future__ import annotations

import contextlib
import datetime
import ssl

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from towline.errors import RequestError
from towline.identity import certificates as pki
from towline.identity.certificates import Pair
from towline.identity.tls import client_context, server_context, use

NOW = datetime.datetime.now(datetime.UTC)
AUTHORITY = pki.make_authority("Towline test", 3650, NOW)
OTHER = pki.make_authority("Towline test", 3650, NOW)


def server_pair(*names: str, days: int = 90, now: datetime.datetime = NOW) -> Pair:
    key = pki.make_key()
    return Pair(key=key, certificate=pki.sign_server(AUTHORITY, key, names, days, now))


def node_pair(authority: Pair = AUTHORITY, node: str = "node-1") -> Pair:
    key = pki.make_key()
    request = pki.make_request(key, "whatever it likes")
    return Pair(key=key, certificate=pki.sign_node(authority, request, node, 30, NOW))


def shake_hands(server: Pair, client: ssl.SSLContext, host: str) -> ssl.SSLObject:
    """Both sides to the end, by hand; returns the server's. Raises ssl.SSLError."""
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    one = server_context(server, AUTHORITY.certificate).wrap_bio(to_server, to_client, server_side=True)
    two = client.wrap_bio(to_client, to_server, server_hostname=host)
    waiting = [two, one, two, one]
    for side in waiting:
        try:
            side.do_handshake()
        except ssl.SSLWantReadError:
            continue
    one.do_handshake()
    return one


@pytest.mark.parametrize("host", ["tow.lan", "10.1.2.3", "::1"])
def test_a_client_takes_a_server_under_each_of_its_names(host: str) -> None:
    served = shake_hands(
        server_pair("tow.lan", "10.1.2.3", "::1"), client_context(AUTHORITY.certificate), host
    )
    assert served.version() == "TLSv1.3"
    assert served.getpeercert(binary_form=True) is None


def test_the_server_learns_the_name_that_it_has_given_to_a_node() -> None:
    served = shake_hands(server_pair("s"), client_context(AUTHORITY.certificate, node_pair()), "s")
    shown = served.getpeercert(binary_form=True)
    assert shown is not None
    assert pki.subject_of(shown) == "node-1"


@pytest.mark.parametrize(
    ("server", "client", "host"),
    [
        (server_pair("s"), client_context(AUTHORITY.certificate), "t"),
        (server_pair("s"), client_context(OTHER.certificate), "s"),
        (node_pair(), client_context(AUTHORITY.certificate), "node-1"),
        (
            server_pair("s", days=1, now=NOW - datetime.timedelta(days=2)),
            client_context(AUTHORITY.certificate),
            "s",
        ),
        (server_pair("s"), client_context(AUTHORITY.certificate, node_pair(OTHER)), "s"),
        (server_pair("s"), client_context(AUTHORITY.certificate, server_pair("s")), "s"),
    ],
    ids=[
        "another name", "another authority", "a node as a server", "expired",
        "a node of another authority", "a server as a node",
    ],
)  # fmt: skip
def test_a_handshake_is_refused(server: Pair, client: ssl.SSLContext, host: str) -> None:
    with pytest.raises(ssl.SSLError):
        shake_hands(server, client, host)


def test_nodes_cannot_sign() -> None:
    node = node_pair()
    forged = node_pair(node, "node-2")
    assert not pki.is_issued_by(forged.certificate, AUTHORITY.certificate)
    assert pki.is_issued_by(node.certificate, AUTHORITY.certificate)
    assert not pki.is_issued_by(node.certificate, OTHER.certificate)
    with pytest.raises(ssl.SSLError):
        shake_hands(server_pair("s"), client_context(AUTHORITY.certificate, forged), "s")


def test_a_request_has_to_prove_its_key() -> None:
    good = pki.make_request(pki.make_key(), "n")
    lines = good.splitlines()
    lines[-2] = lines[-2][::-1]
    for wrong in (b"", b"\xff" * 99, good[:100], b"\n".join(lines)):
        with pytest.raises(RequestError, match="request"):
            pki.sign_node(AUTHORITY, wrong, "n", 30, NOW)


def test_what_a_certificate_says_of_itself() -> None:
    pair = server_pair("b.lan", "10.1.2.3", days=10)
    assert pki.names_of(pair.certificate) == ["b.lan", "10.1.2.3"]
    assert pki.names_of(AUTHORITY.certificate) == []
    assert pki.age(pair.certificate, NOW) == pytest.approx(0, abs=0.01)
    assert pki.age(pair.certificate, NOW + datetime.timedelta(days=5)) == pytest.approx(0.5, abs=0.01)
    assert pki.fingerprint(pair.certificate).startswith("sha256:")
    assert pki.fingerprint(pair.certificate) != pki.fingerprint(AUTHORITY.certificate)
    assert "PRIVATE" not in repr(pair)


def test_a_server_shows_another_certificate_from_the_next_connection_on() -> None:
    context = server_context(server_pair("s"), AUTHORITY.certificate)
    client = client_context(AUTHORITY.certificate)

    def shown() -> bytes | None:
        to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
        one = context.wrap_bio(to_server, to_client, server_side=True)
        two = client.wrap_bio(to_client, to_server, server_hostname="s")
        for side in (two, one, two, one):
            with contextlib.suppress(ssl.SSLWantReadError):
                side.do_handshake()
        return two.getpeercert(binary_form=True)

    before = shown()
    assert shown() == before
    use(context, server_pair("s"))
    assert shown() != before


@pytest.mark.parametrize("curve", [ec.SECP384R1(), ec.SECP192R1()], ids=["larger", "weak"])
def test_a_request_by_a_key_of_another_curve_is_refused(curve: ec.EllipticCurve) -> None:
    key = ec.generate_private_key(curve).private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    with pytest.raises(RequestError, match="P-256"):
        pki.sign_node(AUTHORITY, pki.make_request(key, "node-1"), "node-1", 30, NOW)


def test_only_the_certificate_that_the_fingerprint_is_of_is_trusted() -> None:
    shown = AUTHORITY.certificate + OTHER.certificate
    assert pki.fingerprint(shown) == pki.fingerprint(AUTHORITY.certificate)
    assert pki.only_certificate(shown) == AUTHORITY.certificate
