"""The scripts for several hosts: a broker with a password, a job of Slurm with stand-ins for Slurm's own programs."""

from __future__ import annotations

import json
import os
import shlex
import signal
import stat
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
import redis

from common import config
from common.address import client_of
from common.errors import BrokerUnavailable
from common.streams import Broker
from deploy.arguments import parser
from deploy.commands import COMMANDS
from tests.debian import program
from tests.servers import free_ports
from tests.until import until

ROOT = Path(__file__).parents[2]
SCRIPTS = sorted({*ROOT.glob("deploy/**/*.sh"), ROOT / ".ci" / "run"})
STAND_INS = {
    "scontrol": 'printf "%s\\n" node-a node-b node-c',
    # The step runs here; its id is its place among all
    "srun": """
name=unnamed
while [ "${1#--}" != "$1" ]; do
  case $1 in --job-name=*) name=${1#*=} ;; esac
  echo "$1" >> "$STEPS/options-$$"
  shift
done
echo "$name $$" >> "$STEPS/steps"
exec "$@"
""",
    "squeue": """
while read -r name pid; do
  kill -0 "$pid" 2>/dev/null || continue
  case "$*" in *"%i"*) echo "7.$pid $name" ;; *) echo "$name" ;; esac
done < "$STEPS/steps"
""",
    "scancel": 'echo "$1 $2" >> "$STEPS/cancelled"; kill -TERM "${2#7.}"',
}
WORKER = """
trap 'exit 0' TERM
echo "$REDIS_URL $*" >> "$STEPS/commands"
while :; do sleep 0.05; done
"""
TORCHRUN = """
echo "torchrun $*" >> "$STEPS/commands"
while [ "$1" != --no-python ]; do shift; done
shift
exec "$@"
"""


def executable(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/bash\n{text}")
    path.chmod(0o755)


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_shellcheck_finds_nothing(script: Path) -> None:
    checked = [program("shellcheck", "shellcheck"), "--severity=warning", "--external-sources", str(script)]
    done = subprocess.run(checked, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stdout


@pytest.fixture
def served(tmp_path: Path) -> Iterator[tuple[Path, str]]:
    """Folder of a broker that `broker.sh` has started, and its address."""
    folder = tmp_path / "broker"
    command = ["bash", str(ROOT / "deploy" / "hosts" / "broker.sh"), str(folder), str(free_ports(1)[0]), "64"]
    server = subprocess.Popen(command, env=os.environ | {"BROKER_HOST": "127.0.0.1"}, stdout=subprocess.DEVNULL)
    try:
        not_yet = (OSError, ValueError, redis.ConnectionError)  # no file, an empty one, a server that starts
        until(lambda: client_of((folder / "url").read_text().strip()).ping(), "the broker", passing=not_yet)
        yield folder, (folder / "url").read_text().strip()
    finally:
        server.terminate()
        assert server.wait(60) == 0


def test_a_broker_with_a_password_that_evicts_nothing(served: tuple[Path, str]) -> None:
    folder, url = served
    broker = Broker(url, "test", "learner")
    broker.check()
    assert all(stat.S_IMODE((folder / name).stat().st_mode) == 0o600 for name in ("url", "password", "broker.conf"))
    config = client_of(url).config_get("*")
    assert (config["maxmemory-policy"], config["appendonly"], config["maxmemory"]) == ("noeviction", "yes", "67108864")
    password = (folder / "password").read_text().strip()
    with pytest.raises(BrokerUnavailable, match=r"refuses the login|uthentication"):
        Broker(url.replace(f":{password}@", ""), "test", "learner").check()
    assert password not in subprocess.run(["ps", "-eo", "args"], capture_output=True, text=True, check=True).stdout


def test_a_host_that_does_not_know_its_name_is_asked_for_it(tmp_path: Path) -> None:
    executable(tmp_path / "bin" / "hostname", "exit 1")
    environment = {name: value for name, value in os.environ.items() if name != "BROKER_HOST"}
    environment["PATH"] = f"{tmp_path / 'bin'}:{environment['PATH']}"
    command = ["bash", str(ROOT / "deploy" / "hosts" / "broker.sh"), str(tmp_path / "broker"), "1"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 2 and "set BROKER_HOST" in done.stderr and not (tmp_path / "broker").exists()


def test_a_run_by_ssh_whose_port_another_server_has_says_so(tmp_path: Path, served: tuple[Path, str]) -> None:
    _, url = served
    project = tmp_path / "project"
    executable(project / ".venv" / "bin" / "python", f'exec {sys.executable} "$@"')
    (project / "deploy").symlink_to(ROOT / "deploy")
    (project / "my.toml").write_text('[run]\nfolder = "runs/my"\n')
    port = url.rpartition(":")[2].partition("/")[0]
    environment = os.environ | {"PYTHONPATH": str(ROOT), "BROKER_HOST": "127.0.0.1"}
    command = ["bash", "deploy/hosts/start.sh", "my.toml", "--actors", "gpu1", "--scorers", "cpu1", "--port"]
    done = subprocess.run([*command, port], cwd=project, env=environment, capture_output=True, text=True, timeout=60)
    assert done.returncode == 6 and done.stderr.startswith("the broker did not start; see the logs in runs/my-hosts")
    assert "in use" in (project / "runs" / "my-hosts" / "broker.log").read_text()


@pytest.mark.parametrize(("held", "id_"), [(None, "my-run"), ("my-1f2e3d", "my-1f2e3d")])
def test_a_run_keeps_the_id_that_its_folder_has(tmp_path: Path, held: str | None, id_: str) -> None:
    executable(tmp_path / ".venv" / "bin" / "python", f'exec {sys.executable} "$@"')
    (tmp_path / "my.toml").write_text(f'[run]\nfolder = "{tmp_path}/my run"\n')
    if held:
        (tmp_path / "my run").mkdir()
        (tmp_path / "my run" / "run.json").write_text(json.dumps({"id": held}))
    script = 'here=$1 config=$1/my.toml; . "$2"; echo "$id"'
    command = ["bash", "-euc", script, "-", str(tmp_path), str(ROOT / "deploy" / "hosts" / "shared.sh")]
    assert subprocess.run(command, capture_output=True, text=True, timeout=60, check=True).stdout == f"{id_}\n"


@pytest.fixture
def job(tmp_path: Path) -> Iterator[tuple[subprocess.Popen[bytes], Path]]:
    """A job of three nodes with two GPUs each, and where its steps leave what they were."""
    project, steps = tmp_path / "project", tmp_path / "steps"
    for name, text in STAND_INS.items():
        executable(tmp_path / "bin" / name, text)
    executable(project / ".venv" / "bin" / "hero", WORKER)
    executable(project / ".venv" / "bin" / "torchrun", TORCHRUN)
    executable(project / ".venv" / "bin" / "python", f'exec {sys.executable} "$@"')
    (project / "deploy").symlink_to(ROOT / "deploy")
    steps.mkdir()
    (project / "my.toml").write_text('[run]\nfolder = "runs/my run"\n')
    environment = os.environ | {
        "PATH": f"{tmp_path / 'bin'}:{os.environ['PATH']}", "PYTHONPATH": str(ROOT), "STEPS": str(steps),
        "SLURM_SUBMIT_DIR": str(project), "SLURM_JOB_ID": "7", "SLURM_JOB_NODELIST": "node-[a-c]",
        "SLURM_GPUS_ON_NODE": "2", "SLURM_CPUS_ON_NODE": "8", "LEARNER_NODES": "1", "SCORERS": "3",
        "PORT": str(free_ports(1)[0]),
    }  # fmt: skip
    script = ["bash", str(ROOT / "deploy" / "hosts" / "slurm.sh"), "my.toml"]
    running = subprocess.Popen(script, env=environment, start_new_session=True)
    yield running, steps
    if running.poll() is None:
        os.killpg(running.pid, signal.SIGKILL)
    running.wait(30)


def commands(steps: Path) -> list[Sequence[str]]:
    """[(address or torchrun, argument...)] of what was started so far."""
    file = steps / "commands"
    return [shlex.split(line) for line in file.read_text().splitlines()] if file.is_file() else []


def test_a_job_of_slurm_starts_all_drains_the_learner_first_and_ends(
    job: tuple[subprocess.Popen[bytes], Path],
) -> None:
    running, steps = job
    until(lambda: len(commands(steps)) == 4, "learner, actors, scorers", seconds=60)
    # Then every command is one of ours, with the run and the address of the broker
    started = {words[1]: words for words in commands(steps) if words[0].startswith("redis://:")}
    assert {*started} == {"learner", "actor", "scorer"}
    for words in started.values():
        _, flags = parser(words[1], COMMANDS[words[1]], False).parse_known_args(words[2:])
        config.load(None, flags)
        assert words[0].split("@")[1].startswith("node-a:") and words[-2:] == ["--run.id", "my-run"]
    [torchrun] = [words for words in commands(steps) if words[0] == "torchrun"]
    assert torchrun[torchrun.index("--nproc-per-node") + 1] == "2"
    options = "\n".join(file.read_text() for file in steps.glob("options-*"))
    assert "--nodelist=node-b,node-c\n" in options and "--ntasks=4\n" in options and "--ntasks=3\n" in options
    # When the time is nearly over
    running.send_signal(signal.SIGTERM)
    # Then the learner is told first, the broker last, and all have ended
    assert running.wait(60) == 0
    names = {pid: name for name, pid in (line.split() for line in (steps / "steps").read_text().splitlines())}
    told = [names[line.split()[1].removeprefix("7.")] for line in (steps / "cancelled").read_text().splitlines()]
    assert told[0] == "learner" and {*told[1:3]} == {"actor", "scorer"} and told[3:] == ["broker"]


def test_a_job_without_nodes_for_actors_is_refused(tmp_path: Path) -> None:
    executable(tmp_path / "bin" / "scontrol", "echo node-a")
    (tmp_path / "my.toml").write_text('[run]\nfolder = "runs/my"\n')
    (tmp_path / "deploy").symlink_to(ROOT / "deploy")
    executable(tmp_path / ".venv" / "bin" / "python", f'exec {sys.executable} "$@"')
    environment = os.environ | {
        "PATH": f"{tmp_path / 'bin'}:{os.environ['PATH']}", "SLURM_SUBMIT_DIR": str(tmp_path),
        "SLURM_JOB_NODELIST": "node-a", "SLURM_GPUS_ON_NODE": "2", "SLURM_CPUS_ON_NODE": "8",
    }  # fmt: skip
    script = ["bash", str(ROOT / "deploy" / "hosts" / "slurm.sh"), "my.toml"]
    done = subprocess.run(script, env=environment, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 2 and "actors need one or more" in done.stderr
