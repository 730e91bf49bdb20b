"""A private SLURM on this machine, for trying things out (make slurm) and for the tests marked slurm.

    python -m tests.slurm.cluster start     starts it; prints what to export
    python -m tests.slurm.cluster stop      ends it

Its daemons are those of Debian's packages, run as the current user, on ports of their own and on the loopback device
alone; everything that they write lies in one scratch folder. Two partitions: main, and high, whose jobs preempt those
of main. Character devices such as /dev/null pose as GPUs, and `cores` of them as cores, whatever the machine has.
"""

import argparse
import getpass
import os
import shutil
import signal
import socket
import stat
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

PACKAGES = ("slurmctld", "slurmd", "slurm-client", "munge")
DAEMONS = ("munged", "slurmctld", "slurmd")  # in the order in which they start
FOR_ACCOUNTING = ("slurmdbd", "mariadb-server-core")  # packages
ACCOUNTING = ("mariadbd", "slurmdbd")  # daemons, after munged
GPUS = ("null", "zero", "full", "random")  # devices below /dev that every machine has
PATIENCE = 30.0  # seconds for a daemon to start or to end
DEFAULT_FOLDER = Path(tempfile.gettempdir(), f"moe-study-slurm-{os.getuid()}")  # sockets need short paths


@dataclass(frozen=True)
class Cluster:
    """A cluster that lives in `folder`, which is made when it starts and stays when it stops."""

    folder: Path
    nodes: int = 1  # made up, all of this machine: each a slurmd
    cores: int = 8  # of each node
    gpus: int = 4  # of each node
    first_job_id: int | None = None  # None: one that no cluster of this second has had before
    accounting: bool = False  # with slurmdbd, so that sacct answers and limits by user are kept
    max_submitted: int | None = None  # jobs of a user, with accounting
    max_array_size: int = 1001  # SLURM's own default; the highest index is one less
    max_job_count: int = 10_000  # SLURM's own default: jobs of everybody, those that ended a moment ago included
    remembers: int = 300  # seconds for which it knows of a job that has ended
    grace: int = 15  # seconds from the warning of a preempted job to its end

    @property
    def environment(self) -> dict[str, str]:
        """What SLURM's commands need to find this cluster."""
        return {"SLURM_CONF": str(self.folder / "slurm.conf")}

    def start(self) -> None:
        """Start the daemons and wait until jobs can run; RuntimeError with what a daemon said if it does not."""
        if missing := missing_programs(self.accounting):
            raise RuntimeError(f"{', '.join(missing)} not found; {ADVICE}")
        self.stop()
        if self.folder.exists() and any(self.folder.iterdir()) and not (self.folder / "slurm.conf").exists():
            raise RuntimeError(f"{self.folder} holds other files; name a folder that is empty or not there")
        shutil.rmtree(self.folder, ignore_errors=True)
        for name in ("state", "spool", "log", "dev"):
            (self.folder / name).mkdir(parents=True)
        self.folder.chmod(0o700)
        self._write_settings()
        self._start_munge()
        if self.accounting:
            self._start_accounting()
        self._call("slurmctld", "-f", str(self.folder / "slurm.conf"))
        for node in self._node_names:
            self._call("slurmd", "-f", str(self.folder / "slurm.conf"), "-N", node)
        wait_until(lambda: self._node_states() == {"idle"}, "the nodes to become idle", self.logs)

    def stop(self) -> None:
        """Cancel all jobs and end the daemons; nothing happens where none runs."""
        if self._pid("slurmctld") is not None:
            self.cancel_all()
        for name in (*(file.stem for file in self.folder.glob("slurmd.*.pid")), "slurmctld", *reversed(ACCOUNTING)):
            self._end(name)
        self._end("munged")

    def stop_controller(self) -> None:
        """End slurmctld alone: jobs go on, and nobody answers."""
        self._end("slurmctld")

    def start_controller(self) -> None:
        """Start it again, with what it knew."""
        self._call("slurmctld", "-f", str(self.folder / "slurm.conf"))
        wait_until(lambda: bool(self._node_states()), "slurmctld to answer", self.logs)

    def cancel_all(self) -> None:
        """Cancel all jobs and wait until none is left."""
        self.run("scancel", "--user", getpass.getuser(), check=False)
        wait_until(lambda: not self.run("squeue", "-h", check=False).strip(), "jobs to end", self.logs)

    def run(self, *command: str, check: bool = True) -> str:
        """What a command of SLURM's prints."""
        environment = {**os.environ, **self.environment}
        done = subprocess.run(command, env=environment, capture_output=True, encoding="utf-8", timeout=60, check=False)
        if check and done.returncode:
            raise RuntimeError(f"{' '.join(command)}: {done.stderr.strip()}")
        return done.stdout

    def _end(self, daemon: str) -> None:
        if (pid := self._pid(daemon)) is not None:
            os.kill(pid, signal.SIGTERM)
            wait_until(lambda: self._pid(daemon) is None, f"{daemon} to end", self.logs)

    @property
    def _node_names(self) -> list[str]:
        host = socket.gethostname().partition(".")[0]
        return [host] if self.nodes == 1 else [f"{host}-{number}" for number in range(1, self.nodes + 1)]

    def _node_states(self) -> set[str]:
        return set(self.run("sinfo", "-h", "-N", "-p", "main", "-o", "%T", check=False).split())

    def _pid(self, daemon: str) -> int | None:
        """Of a living daemon of this cluster."""
        try:
            pid = int((self.folder / f"{daemon}.pid").read_text())
            command = Path(f"/proc/{pid}/cmdline").read_bytes()
        except (OSError, ValueError):
            return None
        program = daemon.partition(".")[0].encode()
        return pid if program in command.partition(b"\0")[0] else None  # a number may have a new owner

    def _start_munge(self) -> None:
        key = self.folder / "munge.key"
        key.write_bytes(os.urandom(128))
        key.chmod(0o600)
        places = {"key-file": "munge.key", "seed-file": "munge.seed", "log-file": "log/munged.log"}
        places |= {"socket": "munge.sock", "pid-file": "munged.pid"}
        self._call("munged", "--force", *(f"--{name}={self.folder / place}" for name, place in places.items()))

    def _start_accounting(self) -> None:
        """A database, slurmdbd on top of it, and in that an account for this user."""
        data, user = self.folder / "database", getpass.getuser()
        options = ("--no-defaults", f"--user={user}", f"--datadir={data}")
        self._call("mariadb-install-db", *options, "--auth-root-authentication-method=normal")
        database, port = free_ports(2)
        places = (f"--socket={self.folder}/db.sock", f"--pid-file={self.folder}/mariadbd.pid")
        with open(self.folder / "log" / "mariadbd.log", "w", encoding="utf-8") as log:
            command = (find("mariadbd"), *options, *places, f"--port={database}", "--bind-address=127.0.0.1")
            subprocess.Popen(command, stdout=log, stderr=log, stdin=subprocess.DEVNULL, start_new_session=True)
        wait_until(lambda: (self.folder / "db.sock").exists(), "the database to start", self.logs)
        settings = {
            "DbdHost": "localhost",
            "DbdAddr": "127.0.0.1",
            "DbdPort": port,
            "CommunicationParameters": "NoInAddrAny",
            "SlurmUser": user,
            "AuthType": "auth/munge",
            "AuthInfo": f"socket={self.folder}/munge.sock",
            "StorageType": "accounting_storage/mysql",
            "StorageHost": "127.0.0.1",
            "StoragePort": database,
            "StorageUser": "root",
            "PidFile": self.folder / "slurmdbd.pid",
            "LogFile": self.folder / "log" / "slurmdbd.log",
        }
        file = self.folder / "slurmdbd.conf"
        file.write_text("".join(f"{name}={value}\n" for name, value in settings.items()))
        file.chmod(0o600)
        with open(self.folder / "slurm.conf", "a", encoding="utf-8") as more:
            more.write(
                "AccountingStorageType=accounting_storage/slurmdbd\nAccountingStorageHost=127.0.0.1\n"
                f"AccountingStoragePort={port}\nAccountingStoragePass={self.folder}/munge.sock\n"
                "AccountingStorageEnforce=limits\n"
            )
        self._call("slurmdbd")
        wait_until(lambda: self.run("sacctmgr", "-n", "list", "user", check=False) != "", "slurmdbd", self.logs)
        self.run("sacctmgr", "--immediate", "add", "cluster", "scratch", check=False)
        self.run("sacctmgr", "--immediate", "add", "account", "study")
        limit = f"MaxSubmitJobs={-1 if self.max_submitted is None else self.max_submitted}"
        self.run("sacctmgr", "--immediate", "add", "user", user, "account=study", "DefaultAccount=study", limit)

    def _call(self, daemon: str, *arguments: str) -> None:
        """Start a daemon, which goes into the background by itself."""
        with open(self.folder / "log" / f"{daemon}.start", "w", encoding="utf-8") as output:
            code = subprocess.run(
                (find(daemon), *arguments), env={**os.environ, **self.environment}, stdout=output, stderr=output
            ).returncode
        if code:
            raise RuntimeError(f"{daemon} does not start\n{self.logs()}")

    def logs(self) -> str:
        """The last lines of every log."""
        logs = sorted((self.folder / "log").glob("*"))
        tails = [(log.name, log.read_text(errors="replace").splitlines()[-8:]) for log in logs]
        return "\n".join(line for name, lines in tails for line in (f"--- {name}", *lines))

    def _write_settings(self) -> None:
        for number in range(self.gpus):
            (self.folder / "dev" / f"gpu{number}").symlink_to(f"/dev/{GPUS[number]}")
        host = socket.gethostname().partition(".")[0]
        (self.folder / "gres.conf").write_text(
            "".join(f"Name=gpu File={self.folder}/dev/gpu{number}\n" for number in range(self.gpus))
        )
        (self.folder / "cgroup.conf").write_text("CgroupAutomount=no\n")
        settings = "".join(f"{name}={value}\n" for name, value in self._settings(host).items())
        gres = f" Gres=gpu:{self.gpus}" if self.gpus else ""
        nodes = "".join(
            f"NodeName={node} NodeHostname={host} NodeAddr=127.0.0.1 Port={port} CPUs={self.cores} RealMemory=64000"
            f"{gres} State=UNKNOWN\n"
            for node, port in zip(self._node_names, free_ports(self.nodes), strict=True)
        )
        all_nodes = ",".join(self._node_names)
        (self.folder / "slurm.conf").write_text(
            f"{settings}{nodes}"
            f"PartitionName=main Nodes={all_nodes} Default=YES PriorityTier=1 GraceTime={self.grace} MaxTime=INFINITE\n"
            f"PartitionName=high Nodes={all_nodes} PriorityTier=9 PreemptMode=OFF MaxTime=INFINITE\n"
        )

    def _settings(self, host: str) -> Mapping[str, object]:
        folder, user = self.folder, getpass.getuser()
        (controller,) = free_ports(1)
        return {
            "ClusterName": "scratch",
            "SlurmctldHost": f"{host}(127.0.0.1)",
            "SlurmctldPort": controller,
            "CommunicationParameters": "NoInAddrAny,NoCtldInAddrAny",  # listen where NodeAddr and SlurmctldHost say
            "SlurmUser": user,
            "SlurmdUser": user,
            "AuthType": "auth/munge",
            "AuthInfo": f"socket={folder}/munge.sock,cred_expire=5",  # a requeued job waits for that long
            "StateSaveLocation": folder / "state",
            "SlurmdSpoolDir": folder / "spool" / "%n",
            "SlurmctldPidFile": folder / "slurmctld.pid",
            "SlurmdPidFile": folder / "slurmd.%n.pid",
            "SlurmctldLogFile": folder / "log" / "slurmctld.log",
            "SlurmdLogFile": folder / "log" / "slurmd.%n.log",
            "ProctrackType": "proctrack/linuxproc",
            "TaskPlugin": "task/none",
            "JobAcctGatherType": "jobacct_gather/none",
            **({} if self.accounting else {"AccountingStorageType": "accounting_storage/none"}),
            "SelectType": "select/cons_tres",
            "SelectTypeParameters": "CR_Core",
            "SchedulerParameters": "batch_sched_delay=0,sched_interval=1,bf_interval=1",
            "PreemptType": "preempt/partition_prio",
            "PreemptMode": "REQUEUE",
            "SlurmctldParameters": "preempt_send_user_signal",
            "GresTypes": "gpu",
            "SlurmdParameters": "config_overrides",  # believe the number of cores
            "KillWait": 3,
            "MinJobAge": self.remembers,
            "MaxJobCount": self.max_job_count,
            "ReturnToService": 2,
            "MaxArraySize": self.max_array_size,
            "FirstJobId": self.first_job_id or 1 + int(time.time()) % 60_000_000,
        }


ADVICE = f"install them: apt-get install --no-install-recommends {' '.join((*PACKAGES, *FOR_ACCOUNTING))}"


def find(program: str) -> str:
    """The path of a program, also of those that an ordinary user's PATH lacks; "" where there is none."""
    return shutil.which(program, path=os.pathsep.join((os.environ.get("PATH", os.defpath), "/usr/sbin", "/sbin"))) or ""


def missing_programs(accounting: bool = False) -> list[str]:
    """Those of SLURM and MUNGE that this machine lacks."""
    wanted = (*DAEMONS, "sbatch", "squeue", "scontrol", "scancel", "sinfo", *(ACCOUNTING if accounting else ()))
    return [program for program in wanted if not find(program)]


def free_ports(number: int) -> list[int]:
    """Ports of the loopback device that nobody uses now."""
    sockets = [socket.socket() for _ in range(number)]
    try:
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]
    finally:
        for one in sockets:
            one.close()


def wait_until(condition: Callable[[], bool], what: str, explain: Callable[[], str] = str) -> None:
    """RuntimeError, with what `explain` says, when the condition does not come true."""
    deadline = time.monotonic() + PATIENCE
    while not condition():
        if time.monotonic() > deadline:
            raise RuntimeError(f"waited {PATIENCE:g} s for {what}\n{explain()}")
        time.sleep(0.1)


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.slurm.cluster", description=__doc__)
    parser.add_argument("action", choices=("start", "stop"))
    parser.add_argument("--folder", type=Path, default=DEFAULT_FOLDER, help=f"the scratch folder ({DEFAULT_FOLDER})")
    parser.add_argument("--nodes", type=int, default=1, help="nodes, all of this machine (1)")
    parser.add_argument("--cores", type=int, default=8, help="cores that each node says it has (8)")
    parser.add_argument("--gpus", type=int, default=4, choices=range(len(GPUS) + 1), help="GPUs of each, made up (4)")
    options = parser.parse_args(arguments)
    folder = options.folder
    if folder.exists() and (folder.stat().st_uid != os.getuid() or stat.S_IMODE(folder.stat().st_mode) & 0o077):
        print(f"error: {folder} is not a folder of this user's alone; give another --folder", file=sys.stderr)
        return 1
    cluster = Cluster(folder.resolve(), nodes=options.nodes, cores=options.cores, gpus=options.gpus)
    try:
        cluster.start() if options.action == "start" else cluster.stop()
    except RuntimeError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    if options.action == "start":
        print("SLURM runs; in the shell that shall use it:")
        print(*(f"  export {name}={value}" for name, value in cluster.environment.items()), sep="\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
