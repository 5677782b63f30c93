"""Where settings come from, and how wrong ones are named."""

from __future__ import annotations

from pathlib import Path

import pytest

from towline.errors import WrongSetting
from towline.launch import main
from towline.server.settings import host_and_port, read_settings


def test_defaults(tmp_path: Path) -> None:
    settings = read_settings(tmp_path, {})
    assert (settings.home, settings.pool, settings.idle_s) == (tmp_path, "default", 60.0)


def test_variables_win_over_the_file_and_flags_over_both(tmp_path: Path) -> None:
    (tmp_path / "server.toml").write_text('idle_s = 5.0\nwindow_ms = 7\npool = "file"\n')
    settings = read_settings(tmp_path, {"TOWLINE_WINDOW_MS": "9", "TOWLINE_POOL": "env"}, {"pool": "flag"})
    assert (settings.idle_s, settings.window_ms, settings.pool) == (5.0, 9, "flag")


def test_names_in_a_variable_are_parted_by_commas(tmp_path: Path) -> None:
    assert read_settings(tmp_path, {"TOWLINE_NAMES": "a.lan, 10.0.0.1,,b"}).names == (
        "a.lan",
        "10.0.0.1",
        "b",
    )
    assert read_settings(tmp_path, {"TOWLINE_NAMES": ""}).names == ()


@pytest.mark.parametrize(
    "text", ["a';true;'", "a b", "$(id)", "a\nb", "-x", "a/b", "a?b", "a#b", "u@a", "[::1", "a:b", "", "`a`"]
)
def test_an_address_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"address is .*write HOST:PORT"):
        host_and_port(text, "address")


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("tow.lan", ("tow.lan", 7443)),
        ("Tow.Lan:1", ("tow.lan", 1)),
        ("[fe80::1%eth0]:2", ("fe80::1%eth0", 2)),
        ("[::]", ("::", 7443)),
    ],
)
def test_an_address_is_a_host_with_a_port(text: str, found: tuple[str, int]) -> None:
    assert host_and_port(text, "address") == found


def test_the_home_of_another_command_is_no_setting(tmp_path: Path) -> None:
    assert read_settings(tmp_path, {"TOWLINE_HOME": "/elsewhere"}).home == tmp_path


def test_shorter_leases_and_losses_may_come_from_several_places(tmp_path: Path) -> None:
    (tmp_path / "server.toml").write_text('node_lease = "4s"\nlost_after_keep = "3s"\n')
    settings = read_settings(tmp_path, {"TOWLINE_LOST_AFTER": "7s", "TOWLINE_LEASE_GRACE": "1s"})
    assert (settings.lease.lease_ms, settings.lease.grace_ms) == (4_000, 1_000)
    assert settings.silence == (7_000, 3_000, False)


@pytest.mark.parametrize(
    ("toml", "environ", "words"),
    [
        ("idle = 5", {}, "server.toml.*idle"),
        ("idle_s = 0", {}, "server.toml.*idle_s"),
        ("idle_s =", {}, "server.toml"),
        ("", {"TOWLINE_IDLE_S": "soon"}, "TOWLINE_IDLE_S"),
        ("", {"TOWLINE_WINDOW_MS": "-1"}, "TOWLINE_WINDOW_MS"),
        ("backoff_first_ms = 900\nbackoff_max_ms = 100", {}, "backoff_first_ms.*backoff_max_ms"),
        ('usage_half_life = "10s"', {}, "usage_half_life is '10s': write 1m to 3650d"),
        ("", {"TOWLINE_USAGE_HALF_LIFE": "often"}, "TOWLINE_USAGE_HALF_LIFE.*is 'often': a time is"),
        ('lost_after = "24s"', {}, r"node_lease \(20 s\) \+ lease_grace \(3 s\).*lost_after \(24 s\)"),
        ("", {"TOWLINE_NODE_LEASE": "21s"}, "node_lease.*lease_grace.*lost_after"),
        ('heartbeat = "20s"', {}, "heartbeat .20s. has to be less than node_lease"),
        ('lost_after_keep = "1s"', {}, "heartbeat .2s. has to be less than lost_after_keep"),
        ('lease_grace = "long"', {}, "lease_grace is 'long': a time is"),
        ('maintenance = "soon"', {}, "maintenance is 'soon': a time is"),
        ('heartbeat = "1ms"', {}, "heartbeat is '1ms': write 100ms to 1d"),
        ("backoff_first_ms = 900", {"TOWLINE_BACKOFF_MAX_MS": "800"}, "backoff_first_ms.*backoff_max_ms"),
        ('coordination.url = "zk://a/t"', {}, "coordination_url is set, but store_url is not"),
        (
            'coordination_url = "etcd://a/t"',
            {},
            "coordination_url has to be like zk://HOST1,HOST2,HOST3/towline",
        ),
    ],
)
def test_what_is_wrong_is_named(tmp_path: Path, toml: str, environ: dict[str, str], words: str) -> None:
    (tmp_path / "server.toml").write_text(toml)
    with pytest.raises(WrongSetting, match=words):
        read_settings(tmp_path, environ)


def test_wrong_settings_end_a_server_with_status_2(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("TOWLINE_NODE_LEASE", "30s")
    assert main(["server", "--home", str(tmp_path)]) == 2
    assert "node_lease (30 s) + lease_grace (3 s)" in capfd.readouterr().err
