"""Run commands one after the other, and say what each cost: a separate program.

It reads from stdin `{"log": FILE, "steps": [{"name", "commands": [[ARGUMENT...]...], "cwd"}...],
"watch": BOOLEAN}` and prints one result per step: `{"name", "wall", "cpu", "largest", "together"}`
and, if a command failed, `"status"`. The commands of one step are a pipeline.

wall: Seconds by the clock.
cpu: User and system seconds of the commands and of the children that they waited for (wait4(2)).
largest: Peak resident set size in bytes of the largest process, from the kernel (getrusage(2)).
together: Peak of the summed proportional set sizes in bytes of all processes of the step, read
    every 5 ms from /proc/PID/smaps_rollup. It is null without "watch", and where that file is
    missing, or the processes ended too soon. Reading takes a little of the processes' time.

The stopwatch leads a session; the processes of that session are the processes of the step. The
stopwatch is a small process because Linux counts the memory of a process before exec into its peak:
a command that a large process started would look at least as large as that process.
"""

import json
import os
import sys
import threading
import time

_SMAPS_ROLLUP = "/proc/{}/smaps_rollup"
_INTERVAL_SECONDS = 0.005
_FEWEST_READINGS = 10


def _start(command: list[str], stdin: int, stdout: int, stderr: int) -> int:
    ends = [(os.POSIX_SPAWN_DUP2, fd, to) for to, fd in enumerate((stdin, stdout, stderr))]
    return os.posix_spawnp(command[0], command, os.environ, file_actions=ends)


class _Memory(threading.Thread):
    """Reads the memory of all processes of this session but this one, again and again.

    It adds up proportional set sizes (Pss, proc(5)): a page that N processes have mapped counts 1/N
    in each of them, and so once in the sum over a process and its forked children. A page that
    processes outside the session have mapped too, as of libc, counts in part.

    The processes of one sum are read one after the other: if one forks or ends meanwhile, the sum
    is too large. The peak is therefore the largest sum that two readings in a row reach.
    """

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self._done = threading.Event()
        self._ours: dict[str, bool] = {str(os.getpid()): False}
        self._peak = 0
        self._readings = 0

    def run(self) -> None:
        before = 0
        while not self._done.wait(_INTERVAL_SECONDS):
            processes = [name for name in os.listdir("/proc") if name.isdigit() and self._is(name)]
            now = sum(map(_proportional_size, processes))
            self._peak = max(self._peak, min(before, now))
            self._readings += now > 0
            before = now

    def stop(self) -> int | None:
        """Return the peak; None if the processes ended after too few readings to know it."""
        self._done.set()
        self.join()
        return self._peak if self._readings >= _FEWEST_READINGS else None

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
        with open(_SMAPS_ROLLUP.format(process)) as file:
            return next(int(line.split()[1]) * 1024 for line in file if line.startswith("Pss:"))
    except (OSError, StopIteration):  # it has ended
        return 0


def _run(commands: list[list[str]], log: int) -> tuple[float, int, int]:
    """Run a pipeline.

    Returns:
        Processor seconds, the peak resident set size of the largest process, and the worst exit
        status.
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
    cpu, largest, worst = 0.0, 0, 0
    for pid in pids:
        _, status, usage = os.wait4(pid, 0)
        cpu += usage.ru_utime + usage.ru_stime
        # Linux counts in KiB, macOS in bytes.
        largest = max(largest, usage.ru_maxrss * (1 if sys.platform == "darwin" else 1024))
        worst = max(worst, abs(os.waitstatus_to_exitcode(status)))
    return cpu, largest, worst


def main() -> None:
    order = json.load(sys.stdin)
    log = os.open(order["log"], os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    results = []
    watch = order["watch"] and os.path.exists(_SMAPS_ROLLUP.format("self"))
    for step in order["steps"]:
        os.chdir(step["cwd"])
        memory = _Memory() if watch else None
        if memory:
            memory.start()
        began = time.perf_counter()
        cpu, largest, status = _run(step["commands"], log)
        wall = time.perf_counter() - began
        together = memory.stop() if memory else None
        result = {"name": step["name"], "wall": wall, "cpu": cpu}
        results.append({**result, "largest": largest, "together": together})
        if status:
            results[-1]["status"] = status
            break
    json.dump(results, sys.stdout)


if __name__ == "__main__":
    main()
