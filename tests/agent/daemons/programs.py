"""FRR, BIRD and keepalived by hand, each in a namespace and a directory of its own: a system's own are not touched."""

from __future__ import annotations

import signal
import subprocess
from collections.abc import Mapping
from pathlib import Path

from tests.agent.netns import Namespace
from tests.waiting import eventually
from topologies.frr import DAEMONS, GROUP
from topologies.processes import stop

SETS_UP_S = 15.0
_SBIN = Path("/usr/sbin")
_PROGRAMS = {"FRR": DAEMONS / "bgpd", "BIRD": _SBIN / "bird", "keepalived": _SBIN / "keepalived"}
_PACKAGES = {"FRR": "frr", "BIRD": "bird2", "keepalived": "keepalived"}


def missing(*names: str) -> str:
    """Why these daemons cannot run here; "" if they can."""
    absent = [name for name in names if not _PROGRAMS[name].exists()]
    return f"{', '.join(absent)} not installed (apt-get install {' '.join(_PACKAGES[n] for n in absent)})" if absent else ""


def version(name: str) -> str:
    """As the daemon says itself, on one line."""
    done = subprocess.run([_PROGRAMS[name], "--version"], capture_output=True, text=True, check=True)
    return (done.stdout or done.stderr).splitlines()[0]


class Program:
    """One or more processes of one daemon. They die with this process too, whatever ends it."""

    def __init__(self, ns: Namespace, directory: Path) -> None:
        self.ns = ns
        self.directory = directory
        self._processes: list[subprocess.Popen[bytes]] = []
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)

    @property
    def is_running(self) -> bool:
        return bool(self._processes)

    def start(self) -> None:
        """All of it, from its configuration."""
        raise NotImplementedError

    def stop(self) -> None:
        """In order, the last one first."""
        while self._processes:
            stop(self._processes.pop())

    def kill(self) -> None:
        """Without a word, as a crash would."""
        while self._processes:
            process = self._processes.pop()
            process.kill()
            process.wait()

    def restart(self) -> None:
        """Crashed, and started again."""
        self.kill()
        self.start()

    def log(self) -> str:
        """The end of what it has said."""
        logs = sorted(self.directory.glob("*.log"))
        return "".join(f"{log.name}: {line}\n" for log in logs for line in log.read_text(errors="replace").splitlines()[-8:])

    def _spawn(self, name: str, *command: str, group: str = "root") -> None:
        words = ["setpriv", "--regid", group, "--clear-groups", "--pdeathsig", "TERM", *command]
        with open(self.directory / f"{name}.log", "ab") as log:
            self._processes.append(
                subprocess.Popen(
                    ["ip", "netns", "exec", self.ns.name, *words],
                    stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True,
                )
            )  # fmt: skip

    def _awaits(self, path: Path) -> None:
        eventually(path.exists, f"{path} is there; {self.log()}", SETS_UP_S)


class Frr(Program):
    """zebra and the daemons that have a configuration."""

    def __init__(self, ns: Namespace, directory: Path, configurations: Mapping[str, str]) -> None:
        super().__init__(ns, directory)
        self.configurations = {"zebra": "", **configurations}
        (directory / "vtysh.conf").write_text("")

    def start(self) -> None:
        for daemon, text in self.configurations.items():
            here = self.directory / daemon
            Path(f"{here}.conf").write_text(text)
            Path(f"{here}.vty").unlink(missing_ok=True)
            self._spawn(
                daemon, str(DAEMONS / daemon), "--user", "root", "--group", GROUP, "--config_file", f"{here}.conf",
                "--pid_file", f"{here}.pid", "--socket", str(self.directory / "zserv.api"), "--vty_socket", str(self.directory),
                "--vty_port", "0", "--log", "stdout", "--log-level", "informational", group=GROUP,
            )  # fmt: skip
            self._awaits(Path(f"{here}.vty"))  # a daemon that finds no zebra tries again only after 10 s

    def tell(self, *lines: str) -> str:
        """What vtysh(1) answers to these lines, one after the other."""
        words = ["vtysh", "--vty_socket", str(self.directory), "--config_dir", str(self.directory)]
        for line in lines:
            words += ["-c", line]
        done = subprocess.run(words, capture_output=True, text=True, check=False, timeout=20)
        is_taken = not done.returncode and "% " not in done.stdout
        assert is_taken, f"{lines}: {done.stdout} {done.stderr} {self.log()}"
        return done.stdout


class Bird(Program):
    """One bird(8); its configuration can be changed while it runs."""

    def __init__(self, ns: Namespace, directory: Path, configuration: str) -> None:
        super().__init__(ns, directory)
        self.configuration = configuration
        self._socket = directory / "bird.ctl"

    def start(self) -> None:
        self._write()
        self._socket.unlink(missing_ok=True)
        self._spawn("bird", str(_PROGRAMS["BIRD"]), "-f", "-c", str(self.directory / "bird.conf"), "-s", str(self._socket))
        self._awaits(self._socket)

    def _write(self) -> None:
        (self.directory / "bird.conf").write_text(f"log stderr all;\n{self.configuration}")

    def reconfigure(self, configuration: str) -> None:
        """Takes effect without any session's end where it can."""
        self.configuration = configuration
        self._write()
        answer = self.tell("configure")
        assert "econfigur" in answer, answer + self.log()

    def tell(self, command: str) -> str:
        """What birdc(8) answers."""
        words = [str(_SBIN / "birdc"), "-s", str(self._socket), *command.split()]
        return subprocess.run(words, capture_output=True, text=True, check=True, timeout=20).stdout


class Keepalived(Program):
    """VRRP alone: no checks of servers."""

    def __init__(self, ns: Namespace, directory: Path, configuration: str) -> None:
        super().__init__(ns, directory)
        self.configuration = configuration

    def start(self) -> None:
        here = self.directory
        self._write()
        self._spawn(
            "keepalived", str(_PROGRAMS["keepalived"]), "--dont-fork", "--log-console", "--vrrp", "--use-file",
            str(here / "conf"), "--pid", str(here / "pid"), "--vrrp_pid", str(here / "vrrp.pid"),
        )  # fmt: skip
        self._awaits(here / "vrrp.pid")

    def _write(self) -> None:
        (self.directory / "conf").write_text(self.configuration)

    def reconfigure(self, configuration: str) -> None:
        """Reads the new one in without an end."""
        self.configuration = configuration
        self._write()
        self._processes[0].send_signal(signal.SIGHUP)
