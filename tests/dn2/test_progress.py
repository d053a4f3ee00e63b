from __future__ import annotations

import contextvars
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier

import pytest

import dn2
from dn2.progress import Advance, advance, listening
from tests.dn2.images.listing import touch


def test_nobody_needs_to_listen():
    assert advance("embed", 1) is None


def test_every_listener_around_a_step_hears_it_the_outer_one_first():
    heard: list[tuple[str, Advance]] = []
    with listening(lambda step: heard.append(("outer", step))):
        advance("ingest", 1)
        with listening(lambda step: heard.append(("inner", step))):
            advance("embed", 2, total=5, limit="reading")
        advance("score", 3, total=3)
    advance("score", 4)
    assert heard == [
        ("outer", Advance("ingest", 1)),
        ("outer", Advance("embed", 2, 5, "reading")),
        ("inner", Advance("embed", 2, 5, "reading")),
        ("outer", Advance("score", 3, 3)),
    ]


def test_one_listener_may_listen_twice():
    heard: list[Advance] = []
    with listening(heard.append), listening(heard.append):
        advance("embed", 1)
    assert heard == [Advance("embed", 1)] * 2


def failing() -> None:
    advance("embed", 1)
    raise ValueError("mine")


def test_error_in_the_block_ends_only_the_inner_listener():
    outer: list[int] = []
    inner: list[int] = []
    with listening(lambda step: outer.append(step.items)):
        with pytest.raises(ValueError, match="mine"), listening(lambda step: inner.append(step.items)):
            failing()
        advance("embed", 2)
    assert (outer, inner) == ([1, 2], [1])


def test_threads_have_listeners_of_their_own():
    """Two flows at once in one process must not count each other's images."""
    both = Barrier(2)

    def one(stage: str) -> list[str]:
        heard: list[str] = []
        with listening(lambda step: heard.append(step.stage)):
            both.wait()
            advance(stage, 1)
            both.wait()
        return heard

    with ThreadPoolExecutor(2) as pool:
        assert list(pool.map(one, ["ingest", "embed"])) == [["ingest"], ["embed"]]


def test_thread_that_is_given_the_context_tells_all_listeners():
    outer: list[str] = []
    inner: list[str] = []
    with (
        listening(lambda step: outer.append(step.stage)),
        listening(lambda step: inner.append(step.stage)),
        ThreadPoolExecutor(1) as pool,
    ):
        pool.submit(contextvars.copy_context().run, advance, "embed", 1).result()
    assert (outer, inner) == (["embed"], ["embed"])


def test_real_step_is_heard_by_all(tmp_path: Path):
    touch(tmp_path / "source", "a.png", "b.png")
    outer: list[Advance] = []
    inner: list[Advance] = []
    with listening(outer.append), listening(inner.append):
        dn2.ingest(tmp_path / "source", tmp_path / "store")
    assert outer == inner == [Advance("ingest", 1)] * 2
