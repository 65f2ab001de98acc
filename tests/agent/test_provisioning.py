"""Where the agent learns URL, router and token, and what it says when they are wrong."""

from __future__ import annotations

from pathlib import Path

import pytest

from fsctl.agent import provisioning
from fsctl.agent.provisioning import Config, load, session_id, told
from fsctl.errors import ConfigError

ALL = {"url": "http://f:1", "router": "vr1", "token": "t"}


def loaded(
    flags: dict[str, str | None] | None = None,
    environment: dict[str, str] | None = None,
    file: Path | None = None,
    xen: dict[str, str] | None = None,
) -> Config:
    return load(flags or {}, environment or {}, file, lambda: xen or {})


@pytest.fixture(autouse=True)
def no_file(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(provisioning, "CONFIG_FILE", tmp_path / "absent")


def test_flags_come_before_environment_before_file_before_xenstore(tmp_path: Path) -> None:
    file = tmp_path / "agent.conf"
    file.write_text("# guest\nurl = http://file:1\nrouter = file  # this one\nlease = 5s\n")
    found = loaded({"url": "http://flag:1"}, {"FSCTL_URL": "http://env:1", "FSCTL_ALLOW": "tc, nat"}, file, ALL)
    assert (found.url, found.router, found.token) == ("http://flag:1", "file", "t")
    assert (found.lease_s, found.grace_s, found.allow) == (5.0, 0.0, {"tc", "nat"})


def test_xenstore_is_not_asked_where_all_is_known() -> None:
    def refuse() -> dict[str, str]:
        raise AssertionError("asked")

    assert load(ALL, {}, None, refuse).router == "vr1"


def test_fault_E10_the_source_counts_and_not_which_kind_of_token_it_gives(tmp_path: Path) -> None:
    """A token in the environment went before --token-file."""
    flag, conf = tmp_path / "flag", tmp_path / "agent.conf"
    flag.write_text("by flag\n")
    conf.write_text("token = by file\n")
    where = {"url": "u", "router": "r"}
    assert loaded({**where, "token_file": str(flag)}, {"FSCTL_TOKEN": "by environment"}, conf).token == "by flag"
    (tmp_path / "env").write_text("by environment\n")
    assert loaded(where, {"FSCTL_TOKEN_FILE": str(tmp_path / "env")}, conf, ALL).token == "by environment"
    assert loaded(where, {}, conf, ALL).token == "by file"
    assert loaded(where, {}, None, ALL).token == "t"


def test_fault_E10_status_finds_the_run_dir_of_the_configuration(tmp_path: Path) -> None:
    conf = tmp_path / "agent.conf"
    conf.write_text(f"run_dir = {tmp_path}\n")
    assert told({}, {}, conf)["run_dir"] == (str(tmp_path), str(conf))
    assert told({"run_dir": "/x"}, {}, conf)["run_dir"] == ("/x", "--run-dir")


def test_token_file(tmp_path: Path) -> None:
    (tmp_path / "token").write_text("from file\n")
    assert loaded({"url": "u", "router": "r", "token_file": str(tmp_path / "token")}).token == "from file"
    with pytest.raises(ConfigError, match="token_file: cannot be read"):
        loaded({"url": "u", "router": "r", "token_file": str(tmp_path / "none")})


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"router": None}, "flags, environment, file or xenstore: router: missing"),
        ({"token": None}, "token or token_file: missing"),
        ({"lease": "0.1"}, "--lease: lease: expected 1 to 3600 seconds (got '0.1')"),
        ({"graceful_restart": "soon"}, "--graceful-restart: graceful_restart: expected 0 to 3600 seconds (got 'soon')"),
        ({"allow": "everything"}, "--allow: allow: expected some of firewall, nat"),
    ],
)
def test_what_is_wrong_is_named(wrong: dict[str, str | None], said: str) -> None:
    with pytest.raises(ConfigError) as e:
        loaded({**ALL, **wrong})
    assert said in str(e.value)


def test_a_wrong_file_is_named_with_its_line(tmp_path: Path) -> None:
    file = tmp_path / "agent.conf"
    file.write_text("url = x\nrooter = vr1\n")
    with pytest.raises(ConfigError, match=r"agent\.conf: line 2: expected one of url, router"):
        loaded(file=file)
    with pytest.raises(ConfigError, match="cannot be read"):
        loaded(file=tmp_path / "none")


def test_the_session_survives_a_restart_but_not_a_reboot(tmp_path: Path) -> None:
    first = session_id(tmp_path / "run")
    assert len(first) == 32
    assert session_id(tmp_path / "run") == first
    assert (tmp_path / "run" / "session").stat().st_mode & 0o077 == 0
    (tmp_path / "run" / "session").unlink()
    assert session_id(tmp_path / "run") != first


def test_a_run_dir_that_cannot_be_used_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match="run_dir: cannot be kept"):
        session_id(tmp_path / "file")
