"""Who gets a connection, and who does not."""

from __future__ import annotations

from towline.server.process.places import PER_CERTIFICATE, Places


def test_callers_have_a_bound_together_and_half_of_it_each() -> None:
    places = Places(4)
    assert [places.take(one, "a", None) for one in range(3)] == [True, True, False]
    assert [places.take(one, "b", None) for one in range(10, 12)] == [True, True]
    assert not places.take(20, "c", None)
    places.leave(0)
    places.leave(0)  # it has left already
    places.leave(2)  # it has never had a place
    assert places.take(20, "c", None)
    assert not places.take(21, "c", None)


def test_nodes_take_no_place_of_callers_and_have_a_few_each() -> None:
    places = Places(1)
    assert all(places.take(one, "a", b"n1") for one in range(PER_CERTIFICATE))
    assert not places.take(100, "a", b"n1")
    assert places.take(101, "a", b"n2")
    assert places.take(102, "a", None)
    places.leave(0)
    assert places.take(100, "a", b"n1")
