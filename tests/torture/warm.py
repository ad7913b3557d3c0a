"""Command lines in forked children of one process that has imported everything: 50 ms, not 3 s.

Run as a script it is that process; `Warm` is the way to it. A child may be told to end itself, or
to meet an error, at its n-th step on the disk: see `Steps`.
"""

import errno
import json
import os
import resource
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from itertools import count
from pathlib import Path

CHANGES = {
    "os.rename",
    "os.link",
    "os.remove",
    "os.rmdir",
    "os.mkdir",
    "os.truncate",
    "shutil.rmtree",
}
WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT
GROWING = {"open", "os.mkdir", "os.link"}  # what a full disk refuses


class Steps:
    """Counts a process's steps on files below a folder, by Python's audit events.

    Each opening to write, rename, link, removal and new folder is a step (`reads`: each opening to
    read is, instead). Before step `at` the process kills itself (`error` is ""), or the step fails
    with the error of that name: once, or from there on (`lasting`).
    """

    def __init__(self, root, *, at=0, error="", reads=False, lasting=False, told=None):
        self.root, self.at, self.error = str(root), at, error
        self.reads, self.lasting, self.told = reads, lasting, told
        self.count = 0

    def __call__(self, event, args):
        if not self._counts(event, args):
            return
        self.count += 1
        if self.at and (self.count == self.at or (self.lasting and self.count > self.at)):
            if not self.error:
                os.kill(os.getpid(), signal.SIGKILL)
            number = getattr(errno, self.error)
            raise OSError(number, os.strerror(number), str(args[0]))

    def _counts(self, event, args):
        if event == "open":
            path, _, flags = args
            wanted = not flags & WRITING if self.reads else bool(flags & WRITING)
            return wanted and str(path).startswith(self.root)
        if self.reads:
            return event in ("os.listdir", "os.scandir") and str(args[0]).startswith(self.root)
        if event not in CHANGES:
            return False
        if self.error == "ENOSPC" and event not in GROWING:
            return False
        return str(args[0]).startswith(self.root) or args[-1] not in (-1, None, args[0])


@dataclass(frozen=True)
class Ended:
    """How a child ended: exit code (minus the signal's number), what it said, units of work."""

    code: int
    stdout: str
    stderr: str
    work: int
    steps: int
    seconds: float


class Child:
    """A command line that is running."""

    def __init__(self, warm, pid, place):
        self.warm, self.pid, self.place = warm, pid, place
        self.started = time.monotonic()

    def send(self, number):
        os.kill(self.pid, number)

    def kill_after(self, seconds, number=signal.SIGKILL):
        """Send a signal when it has run for some seconds, unless it has ended."""
        until = self.started + seconds
        while time.monotonic() < until:
            if self.ended():
                return
            time.sleep(min(0.01, max(0.0, until - time.monotonic())))
        if not self.ended():
            self.send(number)

    def wait(self):
        code = self.warm.ask({"wait": self.pid})["code"]
        seconds = time.monotonic() - self.started
        stdout, stderr = (
            (self.place / name).read_text(errors="replace") for name in ("stdout", "stderr")
        )
        work = (self.place / "work").stat().st_size
        told = self.place / "steps"
        steps = int(told.read_text()) if told.exists() else 0
        return Ended(code, stdout, stderr, work, steps, seconds)

    def work_done(self):
        """Count its units of work so far."""
        return (self.place / "work").stat().st_size

    def ended(self):
        """Tell whether it has ended already."""
        return self.warm.ask({"poll": self.pid})["ended"]


class Warm:
    """The process that forks."""

    def __init__(self, folder):
        self.folder, self.number = Path(folder), 0
        self.process = subprocess.Popen(
            [sys.executable, __file__, str(folder)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=os.environ | {"OMP_NUM_THREADS": "1", "NF2VEC_PROGRESS": "silent"},
        )
        self.ask({"ready": 0})

    def start(self, *args, limit=0, jump=0, **steps):
        """Start `nf2vec ARGS`.

        limit: bytes that a file may have. jump: seconds that the clock jumps by, back and forth.
        steps: those of `Steps`.
        """
        self.number += 1
        place = self.folder / str(self.number)
        place.mkdir()
        for name in ("stdout", "stderr", "work"):
            (place / name).touch()
        order = {"args": [str(arg) for arg in args], "place": str(place), "steps": steps}
        order |= {"limit": limit, "jump": jump}
        return Child(self, self.ask(order)["pid"], place)

    def run(self, *args, **steps):
        """Run `nf2vec ARGS` to its end."""
        return self.start(*args, **steps).wait()

    def ask(self, order):
        self.process.stdin.write(json.dumps(order, default=str) + "\n")
        self.process.stdin.flush()
        return json.loads(self.process.stdout.readline())

    def close(self):
        self.process.stdin.close()
        self.process.wait(timeout=60)
        self.process.stdout.close()


def serve(folder):
    """Answer orders, one a line, until standard input ends."""
    replies = os.fdopen(os.dup(1), "w")
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    warm_up(Path(folder))
    ended = {}
    for line in sys.stdin:
        order = json.loads(line)
        answer = {}
        if "args" in order:
            pid = os.fork()
            if not pid:
                child(order)
            ended.pop(pid, None)  # another had that number, some thousands of children ago
            answer = {"pid": pid}
        elif "wait" in order:
            pid = order["wait"]
            if pid not in ended:
                ended[pid] = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
            answer = {"code": ended[pid]}
        elif "poll" in order:
            pid = order["poll"]
            if pid not in ended:
                found, status = os.waitpid(pid, os.WNOHANG)
                if found:
                    ended[pid] = os.waitstatus_to_exitcode(status)
            answer = {"ended": pid in ended}
        replies.write(json.dumps(answer) + "\n")
        replies.flush()


def warm_up(folder):
    """Import what commands import when they run, by running them; no thread outlives a fork."""
    import torch
    from worlds import TINY, TRAINING, make_shapes

    from nf2vec_cli.cli import app

    torch.set_num_threads(1)
    store = folder / "warm.zarr"
    line = ["fit", make_shapes(folder / "warm", 4), "--field", "sdf", "--store", store, *TINY]
    lines = [
        line,
        ["train", store, *TRAINING, "--set", "components=1"],
        ["encode", store],
        ["info", store],
        ["check", store],
        ["copy", store, folder / "copy.zarr"],
    ]
    for words in (*lines, ["retrieve", store, "--query", "a/train/0"]):
        app([str(word) for word in words], standalone_mode=False)


def child(order):
    """Be `nf2vec ARGS`, and never come back."""
    place = Path(order["place"])
    sys.stdin.close()
    for number, name in ((1, "stdout"), (2, "stderr")):
        os.dup2(os.open(place / name, os.O_WRONLY), number)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    count_work(os.open(place / "work", os.O_WRONLY | os.O_APPEND))
    if order["limit"]:
        resource.setrlimit(resource.RLIMIT_FSIZE, (order["limit"], resource.RLIM_INFINITY))
    if order["jump"]:
        jumping_clock(order["jump"])
    hook = Steps(**order["steps"]) if order["steps"] else None
    if hook:
        sys.addaudithook(hook)
    code = 1
    try:
        from nf2vec_cli.cli import app

        app(order["args"], prog_name="nf2vec")
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else 0 if end.code is None else 1
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        if hook and hook.told:
            Path(hook.told).write_text(str(hook.count))
        os._exit(code)


def jumping_clock(by):
    """Let `time.time` be wrong by `by` seconds, one time forward and one time back."""
    right, turns = time.time, count()
    time.time = lambda: right() + (by if next(turns) % 2 else -by)


def count_work(handle):
    """Write a byte for each object fitted, step trained, shard embedded, and file copied."""
    from nf2vec_cli.store import transfer
    from nf2vec_cli.tasks import encode_shard, fit_object
    from nf2vec_cli.tasks.loop import Loop

    def counted(place, name):
        work = getattr(place, name)

        def done(*args, **named):
            found = work(*args, **named)
            os.write(handle, b".")
            return found

        setattr(place, name, done)

    counted(fit_object, "fit_object")
    counted(Loop, "_one")
    counted(encode_shard, "aligned")
    counted(transfer, "_verify")


if __name__ == "__main__":
    serve(sys.argv[1])
