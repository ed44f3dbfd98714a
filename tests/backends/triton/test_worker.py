"""The interpreter's process: each request gets its own answer, whatever interrupted the one before it, in forked children too."""

import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from codesign.backends.triton import worker as protocol
from codesign.backends.triton.interpret import KernelError, Worker

KERNEL = """
import time

def launch(x, y, milliseconds):
    time.sleep(milliseconds / 1000)
    y.copy_(x * 2)
"""


class Stopped(BaseException):
    """What a signal handler raises."""


@pytest.fixture
def worker() -> Iterator[Worker]:
    process = Worker()
    yield process
    process.close()


@pytest.fixture
def ask(worker: Worker, tmp_path: Path) -> Any:
    path = tmp_path / "kernel.py"
    path.write_text(KERNEL)

    def double(number: float, milliseconds: int = 0) -> float:
        tensors = [protocol.packed_of(torch.full((3,), number)), protocol.packed_of(torch.zeros(3))]
        request = {"kind": "kernel", "path": str(path), "tensors": tensors, "sizes": [milliseconds], "first_output": 1}
        (packed,) = worker.ask(request, "kernel double")
        return float(protocol.tensor_of(packed)[2])

    return double


@pytest.mark.parametrize("error", [KeyboardInterrupt, Stopped])
def test_an_interrupted_request_leaves_no_answer_behind(ask: Any, error: type[BaseException]) -> None:
    def stop(*_: Any) -> None:
        raise error

    assert ask(1.0) == 2.0
    before = signal.signal(signal.SIGALRM, stop)
    try:
        for delay in (0.02, 0.1):
            signal.setitimer(signal.ITIMER_REAL, delay)
            with pytest.raises(error):
                ask(5.0, 400)
            assert ask(7.0) == 14.0
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def test_an_answer_to_another_request_is_refused(ask: Any, worker: Worker) -> None:
    ask(1.0)
    worker._number += 1  # as if one more had been sent
    process = worker._process
    assert process is not None
    assert process.stdin is not None
    protocol.send(process.stdin, {"kind": "none", "path": "", "tensors": [], "number": worker._number})
    with pytest.raises(KernelError, match="answered request"):
        ask(2.0)
    assert ask(3.0) == 6.0


def test_a_forked_child_has_its_own_process(tmp_path: Path) -> None:
    """The parent's request is under way while children ask for theirs."""
    from codesign.backends.triton.interpret import worker as shared

    path = tmp_path / "kernel.py"
    path.write_text(KERNEL)

    def double(number: float, milliseconds: int = 0) -> float:
        tensors = [protocol.packed_of(torch.full((3,), number)), protocol.packed_of(torch.zeros(3))]
        request = {"kind": "kernel", "path": str(path), "tensors": tensors, "sizes": [milliseconds], "first_output": 1}
        (packed,) = shared().ask(request, "kernel double")
        return float(protocol.tensor_of(packed)[2])

    assert double(1.0) == 2.0
    parent = shared()._process
    assert parent is not None
    child = os.fork()
    if child == 0:
        clean = shared()._process is None
        answered = double(3.0) == 6.0
        own = shared()._process
        good = clean and answered and own is not None and own.pid != parent.pid
        shared().close()
        os._exit(0 if good else 1)
    for number in (10.0, 11.0, 12.0):
        assert double(number, 20) == 2 * number
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert shared()._process is parent
    assert double(20.0) == 40.0


def test_a_worker_that_died_is_reported_and_replaced(ask: Any, worker: Worker) -> None:
    ask(1.0)
    assert worker._process is not None
    worker._process.kill()
    worker._process.wait()
    assert ask(4.0) == 8.0, "one that died between requests is replaced without a word"
