"""The configuration file: what is read, and that every mistake is named with file, line, key and value."""

from __future__ import annotations

from pathlib import Path

import pytest

from fsctl import config
from fsctl.errors import ConfigError
from fsctl.model.addresses import parse_mac
from fsctl.model.network import Address

ADMIN = "5e884898da28047151d0e56f8dc6292773603d0d6aabbdd62a11ef721d1542d8"
ROUTER = "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08"
GOOD = f"""\
rest: {{host: 127.0.0.1, port: 8080}}
store: /var/lib/fsctl/fsctl.db
admin_token_sha256: {ADMIN}
max_hops: 32
bridges: [br-a, br-b]
routers:
  vr1:
    token_sha256: {ROUTER}
    max_flows: 200000
    interfaces:
      eth0: {{bridge: br-a, port: vif1.0, mac: "02:00:00:00:01:01", mtu: 1500, addresses: [10.0.1.254/24]}}
      eth1: {{bridge: br-b, port: vif1.1, mac: "02:00:00:00:01:02", mtu: 1400, addresses: [10.0.2.254/24, "fd00::1/64"]}}
"""


def load(tmp_path: Path, text: str) -> config.Config:
    file = tmp_path / "fsctl.yaml"
    file.write_text(text)
    return config.load(file)


def changed(old: str, new: str) -> str:
    assert GOOD.count(old) == 1
    return GOOD.replace(old, new)


def test_the_example_of_the_documentation(tmp_path: Path) -> None:
    loaded = load(tmp_path, GOOD)
    assert loaded.rest == config.RestConfig("127.0.0.1", 8080)
    assert (loaded.store, loaded.max_hops, loaded.bridges) == ("/var/lib/fsctl/fsctl.db", 32, ("br-a", "br-b"))
    assert (loaded.ovsdb, loaded.controller) == (config.DEFAULT_OVSDB, "tcp:127.0.0.1:6653")
    vr1 = loaded.routers["vr1"]
    assert (vr1.token_sha256, vr1.max_flows, list(vr1.interfaces)) == (ROUTER, 200_000, ["eth0", "eth1"])
    assert vr1.interfaces["eth1"] == config.InterfaceConfig(
        "eth1", "br-b", "vif1.1", parse_mac("02:00:00:00:01:02"), 1400,
        (Address.parse("10.0.2.254/24"), Address.parse("fd00::1/64")),
    )  # fmt: skip


def test_only_what_is_needed(tmp_path: Path) -> None:
    routers = "routers: {vr1: {interfaces: {eth0: {bridge: br-a, port: v0}}}}"
    loaded = load(tmp_path, f"admin_token_sha256: {ADMIN}\nbridges: [br-a]\n{routers}\n")
    assert loaded.rest == config.RestConfig()
    assert (loaded.store, loaded.max_hops) == (config.DEFAULT_STORE, 32)
    router = loaded.routers["vr1"]
    assert (router.token_sha256, router.max_flows) == (None, 200_000)
    assert router.interfaces["eth0"] == config.InterfaceConfig("eth0", "br-a", "v0")


def test_values_that_yaml_takes_for_numbers(tmp_path: Path) -> None:
    """`12:34:56:12:34:56` is a base-60 integer in YAML 1.1, `1.0` a float, a token of digits an integer."""
    text = changed('"02:00:00:00:01:01"', "12:34:56:12:34:56").replace("vif1.0", "1.0").replace(ADMIN, "1" * 64)
    loaded = load(tmp_path, text)
    eth0 = loaded.routers["vr1"].interfaces["eth0"]
    assert (eth0.mac, eth0.port, loaded.admin_token_sha256) == (parse_mac("12:34:56:12:34:56"), "1.0", "1" * 64)


def test_paths_are_relative_to_the_file(tmp_path: Path) -> None:
    assert load(tmp_path, changed("/var/lib/fsctl/fsctl.db", "data/fsctl.db")).store == str(tmp_path / "data/fsctl.db")
    assert load(tmp_path, changed("/var/lib/fsctl/fsctl.db", '":memory:"')).store == ":memory:"


def test_controller_and_ovsdb(tmp_path: Path) -> None:
    assert load(tmp_path, GOOD + "openflow: {controller: null}\n").controller is None
    loaded = load(tmp_path, GOOD + "openflow: {controller: 'tcp:[::1]:6653'}\novsdb: tcp:10.0.0.1:6640\n")
    assert (loaded.controller, loaded.ovsdb) == ("tcp:[::1]:6653", "tcp:10.0.0.1:6640")


def test_tls_needs_both_files(tmp_path: Path) -> None:
    for name in ("cert.pem", "key.pem"):
        (tmp_path / name).write_text("x")
    rest = "rest: {host: 127.0.0.1, port: 8080}"
    loaded = load(tmp_path, changed(rest, "rest: {tls_certificate: cert.pem, tls_key: key.pem}"))
    assert (loaded.rest.tls_certificate, loaded.rest.tls_key) == (str(tmp_path / "cert.pem"), str(tmp_path / "key.pem"))
    with pytest.raises(ConfigError, match="tls_certificate and tls_key together"):
        load(tmp_path, changed(rest, "rest: {tls_certificate: cert.pem}"))
    with pytest.raises(ConfigError, match="a file that is there"):
        load(tmp_path, changed(rest, "rest: {tls_certificate: cert.pem, tls_key: nokey.pem}"))


WRONG = [
    # (text in GOOD, replacement, field, line, words of the error)
    ("max_hops: 32", "max_hops: 0", "max_hops", 4, "from 1 to 254"),
    ("max_hops: 32", "max_hops: many", "max_hops", 4, "whole number"),
    ("max_hops: 32", "max_hops: 3.5", "max_hops", 4, "whole number"),
    ("max_hops: 32", "max_hop: 32", "max_hop", 4, "did you mean max_hops"),
    ("max_hops: 32", "zzz: 32", "zzz", 4, "expected one of"),
    ("max_hops: 32", "store: other.db", "store", 4, "twice, first at line 2"),
    ("port: 8080", "port: 70000", "rest.port", 1, "from 0 to 65535"),
    ("{host: 127.0.0.1, port: 8080}", "[]", "rest", 1, "a mapping"),
    (ADMIN, "secret", "admin_token_sha256", 3, "64 hex digits"),
    (ADMIN, ROUTER, "routers.vr1.token_sha256", None, "admin_token_sha256 has it already"),
    ("[br-a, br-b]", "[br-a, br-b, br-a]", "bridges[2]", 5, "every bridge once"),
    ("[br-a, br-b]", "[]", "bridges", 5, "at least one"),
    ("[br-a, br-b]", "br-a", "bridges", 5, "a list"),
    ("[br-a, br-b]", "[a-bridge-name-that-is-too-long, br-b]", "bridges[0]", 5, "15 characters"),
    ("bridge: br-a", "bridge: br-c", "routers.vr1.interfaces.eth0.bridge", 11, "br-a, br-b"),
    ("vif1.1", "vif1.0", "routers.vr1.interfaces.eth1.port", 12, "routers.vr1.interfaces.eth0.port has it already"),
    ("02:00:00:00:01:01", "03:00:00:00:01:01", "routers.vr1.interfaces.eth0.mac", 11, "unicast"),
    ("02:00:00:00:01:01", "0200.0000.0101", "routers.vr1.interfaces.eth0.mac", 11, "MAC address"),
    ("mtu: 1500", "mtu: 67", "routers.vr1.interfaces.eth0.mtu", 11, "from 68"),
    ("10.0.1.254/24", "10.0.1.254", "routers.vr1.interfaces.eth0.addresses[0]", 11, "address/length"),
    ("max_flows: 200000", "max_flows: -1", "routers.vr1.max_flows", 9, "whole number"),
    ("max_flows: 200000", "max_rules: -1", "routers.vr1.max_rules", 9, "whole number"),
    ("max_flows: 200000", "max_senders: x", "routers.vr1.max_senders", 9, "whole number"),
    ("max_flows: 200000", "max_nexthops: -1", "routers.vr1.max_nexthops", 9, "whole number"),
    ("  vr1:", "  vr/1:", "routers.vr/1", 8, "router's name"),
    ("      eth0:", "      'eth 0':", "routers.vr1.interfaces.eth 0", 11, "interface's name"),
    ('port: vif1.0, mac: "02:00:00:00:01:01", ', "", "routers.vr1.interfaces.eth0", 11, "port or mac"),
    ("bridge: br-a, ", "", "routers.vr1.interfaces.eth0.bridge", 11, "missing"),
]


@pytest.mark.parametrize("wrong", WRONG, ids=[f"{w[2]}={w[1]}" for w in WRONG])
def test_mistakes_are_named(tmp_path: Path, wrong: tuple[str, str, str, int | None, str]) -> None:
    old, new, field, line, words = wrong
    with pytest.raises(ConfigError) as caught:
        load(tmp_path, changed(old, new))
    text = str(caught.value)
    assert caught.value.field == field
    assert text.startswith(f"{tmp_path / 'fsctl.yaml'}: {field}: ")
    assert words in text
    assert line is None or f"line {line}: " in text


def test_one_mac_on_one_bridge_once(tmp_path: Path) -> None:
    text = changed("02:00:00:00:01:02", "02:00:00:00:01:01")
    assert load(tmp_path, text).routers["vr1"].interfaces["eth1"].bridge == "br-b"  # another bridge: allowed
    with pytest.raises(ConfigError, match=r"eth1\.mac.*nobody else has on br-a.*eth0\.mac has it already"):
        load(tmp_path, text.replace("bridge: br-b", "bridge: br-a"))


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("a: [1, 2\nb: 3\n", "line 2"),
        ("a: b: c\n", "line 1"),
        ("", "empty"),
        ("# nothing\n", "empty"),
        ("a: 1\n---\nb: 2\n", "expected"),
        ("just text", "a mapping with the keys"),
        ("\x00", "expected YAML"),
        ("&a [*a]", "a mapping with the keys"),
    ],
)
def test_what_is_not_a_configuration(tmp_path: Path, text: str, words: str) -> None:
    with pytest.raises(ConfigError, match=words) as caught:
        load(tmp_path, text)
    assert "fsctl.yaml" in str(caught.value)


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="No such file"):
        config.load(tmp_path / "missing.yaml")
    with pytest.raises(ConfigError, match="directory"):
        config.load(tmp_path)
    (tmp_path / "latin.yaml").write_bytes(b"a: \xff\n")
    with pytest.raises(ConfigError, match="readable"):
        config.load(tmp_path / "latin.yaml")


def test_the_environment_names_the_file() -> None:
    assert config.path_from({"FSCTL_CONFIG": "/etc/fsctl.yaml"}) == Path("/etc/fsctl.yaml")
    with pytest.raises(ConfigError, match="FSCTL_CONFIG"):
        config.path_from({})
