"""The words between supervisor and runner."""

from __future__ import annotations

import os

import pytest

from tuner.worker import protocol

MESSAGES: list[protocol.Message] = [
    protocol.Ready(),
    protocol.Run(key="1:2", plan={"number": 3, "text": "zwei\nZeilen ☃"}),
    protocol.Answer(key="1:2", epoch=1, verdict="prune"),
    protocol.Interrupt(key="1:2", verdict="release"),
    protocol.Started(key="1:2", facts={"trainable_params": 7}),
    protocol.Progress(key="1:2", epoch=1, fraction=0.5),
    protocol.Report(key="1:2", epoch=1, metrics={"f1": 0.25}, seconds=1.5),
    protocol.Finished(key="1:2", result={"ended_by": "epochs"}),
    protocol.Failed(key="1:2", outcome="errored", reason="why", seconds=1.0, traceback="Traceback…", recycle=True),
]


@pytest.mark.parametrize("message", MESSAGES, ids=lambda message: type(message).__name__)
def test_a_message_is_one_line_and_comes_back_equal(message: protocol.Message) -> None:
    line = protocol.encode(message)
    assert line.count(b"\n") == 1
    assert protocol.decode(line) == message


@pytest.mark.parametrize("line", [b"{}", b"[]", b'{"type": "dance"}', b"not json"])
def test_what_is_no_message_is_refused(line: bytes) -> None:
    with pytest.raises(ValueError):
        protocol.decode(line)


def test_a_pipe_gives_whole_messages_however_it_cuts_them() -> None:
    read, write = os.pipe()
    reader = protocol.LineReader(read)
    line = protocol.encode(MESSAGES[1])
    os.write(write, line[:7])
    assert reader.read() == []
    os.write(write, line[7:] + protocol.encode(MESSAGES[0]))
    assert reader.read() == [MESSAGES[1], MESSAGES[0]]
    before = reader.is_closed
    os.close(write)
    assert reader.read() == []
    assert (before, reader.is_closed) == (False, True)
    os.close(read)


def test_a_message_larger_than_the_pipe_arrives_whole() -> None:
    import threading

    read, write = os.pipe()
    reader = protocol.LineReader(read)
    message = protocol.Finished(key="1:1", result={"text": "x" * 1_000_000})
    sender = threading.Thread(target=protocol.send, args=(write, message))
    sender.start()
    received: list[protocol.Message] = []
    while not received:
        received += reader.read()
    sender.join()
    os.close(write)
    os.close(read)
    assert received == [message]
