"""What all tests share: hypothesis profiles and the seed of a run."""

from __future__ import annotations

import os
import signal

from hypothesis import HealthCheck, settings

pytest_plugins = ["tests.cpu"]

# Whoever starts the tests in the background ignores these, which every program that a test starts would
# inherit, and Ctrl-C would reach none of them.
for number in (signal.SIGINT, signal.SIGQUIT):
    if signal.getsignal(number) is signal.SIG_IGN:
        signal.signal(number, signal.default_int_handler if number is signal.SIGINT else signal.SIG_DFL)

# No deadlines: machines that run tests are busy. In CI failures print how to repeat them.
_QUIET = (HealthCheck.too_slow, HealthCheck.data_too_large)
settings.register_profile("local", deadline=None, suppress_health_check=_QUIET, max_examples=100)
settings.register_profile("ci", parent=settings.get_profile("local"), print_blob=True, derandomize=True)
settings.register_profile("thorough", parent=settings.get_profile("local"), max_examples=2_000)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE") or ("ci" if os.environ.get("CI") else "local"))
