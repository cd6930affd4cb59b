"""Run commands one after the other, and say what each cost: a program of its own.

It reads from stdin `{"log": FILE, "steps": [{"name", "commands": [[ARGUMENT...]...], "cwd"}...],
"watch": BOOLEAN}` and prints a list of what was measured. The commands of one step are a pipeline.
With "watch" the memory of all processes together is looked at while they run, which takes a little
of their time. It has to lead a session, by which it knows its descendants. It is a small process
because Linux counts what a process has been before exec into its peak memory: started
from a large one, every command would look at least as large as that.
"""

import json
import os
import sys
import threading
import time

_LOOK_SECONDS = 0.05


def _start(command: list[str], stdin: int, stdout: int, stderr: int) -> int:
    ends = [(os.POSIX_SPAWN_DUP2, fd, to) for to, fd in enumerate((stdin, stdout, stderr))]
    return os.posix_spawnp(command[0], command, os.environ, file_actions=ends)


class _Memory(threading.Thread):
    """Looks at the memory of all processes of this session but this one, again and again.

    It adds up proportional set sizes, in which pages that processes share count once (proc(5)).
    """

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self._done = threading.Event()
        self._ours: dict[str, bool] = {str(os.getpid()): False}
        self.peak = 0

    def run(self) -> None:
        while not self._done.wait(_LOOK_SECONDS):
            processes = [name for name in os.listdir("/proc") if name.isdigit() and self._is(name)]
            self.peak = max(self.peak, sum(map(_proportional_size, processes)))

    def stop(self) -> int:
        self._done.set()
        self.join()
        return self.peak

    def _is(self, process: str) -> bool:
        if process not in self._ours:
            self._ours[process] = _session(process) == os.getsid(0)
        return self._ours[process]


def _session(process: str) -> int:
    try:
        with open(f"/proc/{process}/stat") as file:
            return int(file.read().rpartition(")")[2].split()[3])
    except OSError:  # it has ended
        return -1


def _proportional_size(process: str) -> int:
    try:
        with open(f"/proc/{process}/smaps_rollup") as file:
            return next(int(line.split()[1]) * 1024 for line in file if line.startswith("Pss:"))
    except (OSError, StopIteration):  # it has ended
        return 0


def _run(commands: list[list[str]], log: int) -> tuple[float, int, int]:
    """Run a pipeline; return CPU seconds, peak memory in bytes and the worst exit status.

    The peak is that of the largest process, children included, as the kernel keeps it.
    """
    stdin = os.open(os.devnull, os.O_RDONLY)
    pids = []
    for number, command in enumerate(commands):
        readable, writable = -1, log
        if number < len(commands) - 1:
            readable, writable = os.pipe()
        pids.append(_start(command, stdin, writable, log))
        os.close(stdin)
        if writable != log:
            os.close(writable)
        stdin = readable
    cpu, peak, worst = 0.0, 0, 0
    for pid in pids:
        _, status, usage = os.wait4(pid, 0)
        cpu += usage.ru_utime + usage.ru_stime
        # Linux counts in KiB, macOS in bytes.
        peak = max(peak, usage.ru_maxrss * (1 if sys.platform == "darwin" else 1024))
        worst = max(worst, abs(os.waitstatus_to_exitcode(status)))
    return cpu, peak, worst


def main() -> None:
    order = json.load(sys.stdin)
    log = os.open(order["log"], os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    results = []
    watch = order["watch"] and os.path.exists("/proc/self/smaps_rollup")
    for step in order["steps"]:
        os.chdir(step["cwd"])
        memory = _Memory() if watch else None
        if memory:
            memory.start()
        began = time.perf_counter()
        cpu, peak, status = _run(step["commands"], log)
        wall = time.perf_counter() - began
        if memory:
            peak = max(peak, memory.stop())
        results.append({"name": step["name"], "wall": wall, "cpu": cpu, "peak": peak})
        if status:
            results[-1]["status"] = status
            break
    json.dump(results, sys.stdout)


if __name__ == "__main__":
    main()
