"""A process that has imported the packages of a job, and forks a child for each job (`python -c`).

A child then executes the program that a new process would (boot.py), with the descriptors of its job. The
server runs no job itself, so nothing of one is in the memory of another. It must have no thread that a child
would miss, so it must not import onnxruntime, which starts one.

Arguments: the descriptor of the socket that jobs arrive on, the text of boot.py, the packages. It first
writes "r" there. A job is one byte with four descriptors: standard input, output and error of the child, and
a socket for its state. The server writes "started" to it, and at the end the exit status, negative for a
signal. If the other side closes it, the server kills the child. The server ends with its parent, which closes
the socket of jobs, or after some time without a job.
"""

import array
import gc
import importlib
import os
import select
import signal
import socket
import sys
import traceback
import warnings

IDLE_MS = 30000
READY = b"r"
STARTED = b"started\n"


class Server:
    """children: the sockets of those that run, by process id."""

    def __init__(self, jobs: socket.socket, program: str) -> None:
        self._jobs, self._program = jobs, program
        self._accepting = True
        self._children: dict[int, socket.socket] = {}
        self._woken, wake = os.pipe()
        for descriptor in (self._woken, wake):
            os.set_blocking(descriptor, False)
        signal.signal(signal.SIGCHLD, lambda number, frame: None)
        signal.set_wakeup_fd(wake)
        self._own = [jobs.fileno(), self._woken, wake]

    def serve(self) -> None:
        """Returns when there is nothing left to do."""
        unwatched: set[int] = set()  # sockets that were closed, whose child is being killed
        while self._accepting or self._children:
            poll = select.poll()
            poll.register(self._woken, select.POLLIN)
            if self._accepting:
                poll.register(self._jobs, select.POLLIN)
            sockets = {state.fileno(): pid for pid, state in self._children.items()}
            unwatched &= set(sockets)
            for descriptor in set(sockets) - unwatched:
                poll.register(descriptor, select.POLLIN)
            ready = [descriptor for descriptor, _ in poll.poll(None if self._children else IDLE_MS)]
            if not ready:
                return
            for descriptor in ready:
                if descriptor in sockets:
                    unwatched.add(descriptor)
                    os.kill(sockets[descriptor], signal.SIGKILL)
            if self._woken in ready:
                os.read(self._woken, 4096)
            self._reap()
            if self._jobs.fileno() in ready:
                self._accept()

    def _reap(self) -> None:
        while self._children:
            pid, status = os.waitpid(-1, os.WNOHANG)
            if not pid:
                return
            code = -os.WTERMSIG(status) if os.WIFSIGNALED(status) else os.WEXITSTATUS(status)
            state = self._children.pop(pid)
            _write(state, b"%d\n" % code)
            state.close()

    def _accept(self) -> None:
        numbers = array.array("i")
        data, ancillary, _, _ = self._jobs.recvmsg(1, socket.CMSG_SPACE(4 * numbers.itemsize))
        if not data:
            self._accepting = False
            return
        numbers.frombytes(ancillary[0][2])
        state = socket.socket(fileno=numbers[3])
        streams = list(numbers[:3])
        try:
            with warnings.catch_warnings():
                # Of threads: those of OpenBLAS, which it ends before a fork.
                warnings.simplefilter("ignore", DeprecationWarning)
                pid = os.fork()
            if pid == 0:
                self._become_child(streams, state)
            self._children[pid] = state
            _write(state, STARTED)
        except OSError:  # no memory, or too many processes: the parent sees that nothing was started
            state.close()
        for descriptor in streams:
            os.close(descriptor)

    def _become_child(self, streams: "list[int]", state: socket.socket) -> None:
        """Run the program as a new process would. Does not return."""
        try:
            signal.set_wakeup_fd(-1)
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            signal.signal(signal.SIGINT, signal.default_int_handler)
            for target, descriptor in enumerate(streams):
                os.dup2(descriptor, target)
            others = [each.fileno() for each in (state, *self._children.values())]
            for descriptor in (*streams, *self._own, *others):
                os.close(descriptor)
            if "numpy.random" in sys.modules:
                sys.modules["numpy.random"].seed()
            sys.argv = ["-c", "2", ""]
            exec(compile(self._program, "<string>", "exec"), {"__name__": "__main__"})
        except BaseException:
            traceback.print_exc()
        os._exit(1)


def _write(state: socket.socket, data: bytes) -> None:
    try:
        state.sendall(data)
    except OSError:  # nobody waits for it any more
        pass


def run(jobs: int, program: str, *packages: str) -> None:
    # Ctrl-C reaches the children, and ends the parent, which closes the socket.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    sys.path[:] = [path for path in sys.path if path]  # `-c` puts the current folder first
    own = socket.socket(fileno=jobs)
    _write(own, READY)
    for package in packages:
        try:
            importlib.import_module(package)
        except Exception:  # a child that needs it says what is wrong
            break
    gc.collect()
    gc.freeze()  # so that a child's collections do not copy these pages
    Server(own, program).serve()
    os._exit(0)


if __name__ == "__main__":
    run(int(sys.argv[1]), *sys.argv[2:])
