"""Leases in ZooKeeper keep what is asked of leases in any store."""

from tests.conformance.stores.test_coordination import (  # noqa: F401 - run here with this folder's store
    test_a_lease_fences_nothing_and_a_term_takes_no_lease,
    test_a_lease_is_taken_from_the_state_that_was_seen,
    test_a_pool_is_made_once_and_has_a_lease_that_nobody_took,
    test_no_state_of_a_lease_comes_twice,
    test_of_many_who_ask_at_once_one_gets_it,
    test_only_its_holder_renews_a_lease_and_a_free_one_is_nobodys,
)
