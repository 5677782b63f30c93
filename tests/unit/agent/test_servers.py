"""Which server an agent asks next."""

from __future__ import annotations

from towline.agent.cluster.servers import MOST_KNOWN, Servers

A, B, C, D = (f"https://{name}:7443" for name in "abcd")


def test_each_is_asked_in_its_turn_the_last_leader_first() -> None:
    servers = Servers(A, told=(B, C))
    first = [servers.next() for _ in range(3)]
    assert first[0] == A and sorted(first) == [A, B, C]
    assert servers.next() == A


def test_one_that_leads_is_asked_at_once() -> None:
    servers = Servers(A, told=(B, C))
    servers.next()
    assert servers.moved(C)
    assert servers.next() == C


def test_one_that_could_not_be_reached_is_asked_again_after_a_pause_only() -> None:
    servers = Servers(A, told=(B,))
    servers.failed(B)
    assert not servers.moved(B)
    assert servers.moved(B)


def test_others_are_asked_before_one_that_is_silent() -> None:
    servers = Servers(A, told=(B, C))
    servers.welcomed(B, ())
    servers.silent()
    assert [servers.next() for _ in range(3)][-1] == B


def test_what_servers_tell_is_kept_and_the_first_one_never_forgotten() -> None:
    kept: list[tuple[str, ...]] = []
    servers = Servers(A, keep=kept.append)
    assert not servers.several
    servers.welcomed(A, (B, C))
    servers.heard_of((C, B))
    servers.heard_of(())
    assert kept == [(B, C)]
    servers.heard_of((D,))
    assert kept[1:] == [(D, B, C)]
    servers.heard_of((B, C))
    assert servers.all == (B, C, D, A)
    for number in range(30):
        servers.heard_of((f"https://{number}:1", B))
    assert len(servers.all) == MOST_KNOWN + 1 and servers.all[:2] == ("https://29:1", B)


def test_servers_of_the_settings_stay_known() -> None:
    servers = Servers(A, told=(B, C))
    servers.also((C, D))
    assert servers.all == (B, C, A, D)
