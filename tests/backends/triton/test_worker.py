"""Talking to the interpreter's process: each request gets its own answer, whatever interrupted the one before it, in forked children too."""

import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from codesign.backends.triton import interpret
from codesign.backends.triton import worker as protocol
from codesign.backends.triton.interpret import KernelError, Worker

SERVICE = f"""
import os, sys, time
sys.path.insert(0, {str(Path(protocol.__file__).parent)!r})
import worker as protocol

requests, answers = os.fdopen(0, "rb"), os.fdopen(1, "wb")
while True:
    try:
        request = protocol.receive(requests)
    except EOFError:
        break
    time.sleep(request["seconds"])
    protocol.send(answers, (request["number"], "ok", 2 * request["value"]))
"""
"""A process that speaks as the worker does and has nothing to import."""


@pytest.fixture
def worker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Worker]:
    script = tmp_path / "service.py"
    script.write_text(SERVICE)
    process = Worker(str(script))
    monkeypatch.setattr(interpret, "_worker", process)
    yield process
    process.close()


def double(value: float, seconds: float = 0.0, stopped_after: float = 0.0) -> Any:
    signal.setitimer(signal.ITIMER_REAL, stopped_after)
    return interpret.worker().ask({"path": "kernel.py", "value": value, "seconds": seconds}, "kernel double")


class Stopped(BaseException):
    """What a signal handler raises."""


@pytest.mark.parametrize("error", [KeyboardInterrupt, Stopped])
@pytest.mark.parametrize("delay", [0.001, 0.05, 0.2])
@pytest.mark.usefixtures("worker")
def test_an_interrupted_request_leaves_no_answer_behind(error: type[BaseException], delay: float) -> None:
    def stop(*_: Any) -> None:
        raise error

    assert double(1.0) == 2.0
    before = signal.signal(signal.SIGALRM, stop)
    try:
        with pytest.raises(error):
            double(5.0, 0.3, stopped_after=delay)
        assert double(7.0) == 14.0
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def test_an_answer_to_another_request_is_refused(worker: Worker) -> None:
    double(1.0)
    assert worker._process is not None
    assert worker._process.stdin is not None
    protocol.send(worker._process.stdin, {"value": 100.0, "seconds": 0, "number": 77})
    with pytest.raises(KernelError, match="answered request 77"):
        double(2.0)
    assert double(3.0) == 6.0


def test_a_forked_child_has_its_own_process(worker: Worker) -> None:
    """Children ask while the parent does: nobody hears another's answer."""
    assert double(1.0) == 2.0
    parent = worker._process
    assert parent is not None
    children = []
    for number in (100.0, 200.0):
        child = os.fork()
        if child == 0:
            clean = worker._process is None
            answers = [double(number + i, 0.01) == 2 * (number + i) for i in range(10)]
            own = worker._process
            good = clean and all(answers) and own is not None and own.pid != parent.pid
            worker.close()
            os._exit(0 if good else 1)
        children.append(child)
    for number in range(20):
        assert double(float(number), 0.01) == 2.0 * number
    for child in children:
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert worker._process is parent
    assert double(20.0) == 40.0


def test_a_worker_that_died_is_replaced(worker: Worker) -> None:
    double(1.0)
    assert worker._process is not None
    worker._process.kill()
    worker._process.wait()
    assert double(4.0) == 8.0


def test_tensors_travel_whole() -> None:
    for tensor in (torch.arange(6.0).reshape(2, 3), torch.zeros(0, 4), torch.ones((), dtype=torch.bfloat16)):
        read, write = os.pipe()
        with os.fdopen(read, "rb") as here, os.fdopen(write, "wb") as there:
            protocol.send(there, {"t": protocol.packed_of(tensor)})
            again = protocol.tensor_of(protocol.receive(here)["t"])
        assert again.dtype == tensor.dtype
        assert torch.equal(again, tensor)
        if again.numel():
            again += 1  # memory of its own, which can be written
            assert not torch.equal(again, tensor)
