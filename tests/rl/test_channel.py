"""Messages between two ends: whole, in order, never waited for, never in part."""

import multiprocessing

import numpy as np
import pytest

from minis5.rl.channel import HEADER, Channel


@pytest.fixture
def ends():
    both = multiprocessing.Pipe()
    return both, tuple(map(Channel, both))


def fail():
    raise AssertionError("there is room")


class Full(Exception):
    pass


def full():
    raise Full


def test_messages_arrive_whole_and_in_order(ends):
    _, (a, b) = ends
    b.read()
    assert not b.messages and b.error is None and not b.over
    sent = [b"one", b"", b"three" * 1000]
    for message in sent:
        a.write(message, fail)
    b.write(b"back", fail)
    a.read()
    b.read()
    assert list(b.messages) == sent and list(a.messages) == [b"back"]


def test_more_than_the_pipe_holds(ends):
    """The writer is told that there is no room; reading makes some."""
    _, (a, b) = ends
    large = np.random.default_rng(0).bytes(3_000_000)
    a.write(large, b.read)
    b.read()
    assert list(b.messages) == [large]
    with pytest.raises(Full):
        a.write(large, full)


def test_an_error_is_told_apart(ends):
    _, (a, b) = ends
    a.write(b"result", fail)
    a.write("Fehler: ü".encode(), fail, is_error=True)
    b.read()
    assert list(b.messages) == [b"result"] and b.error == "Fehler: ü"


@pytest.mark.parametrize("part", [1, HEADER.size, HEADER.size + 4])
def test_a_message_cut_short_never_arrives(ends, part):
    """It ends in its head or in its body, as a killed process leaves it."""
    (connection, _), (a, b) = ends
    a.write(b"whole", fail)
    head = (HEADER.pack(False, 10) + b"x" * 9)[:part]
    connection._send(head)
    b.read()
    assert list(b.messages) == [b"whole"] and not b.over
    a.close()
    b.read()
    assert list(b.messages) == [b"whole"] and b.over and b.error is None


def test_a_closed_end_cannot_be_written_to(ends):
    _, (a, b) = ends
    a.write(b"last words", fail)
    a.close()
    with pytest.raises(ConnectionError):
        b.write(b"hello", fail)
    b.read()
    assert list(b.messages) == [b"last words"] and b.over
