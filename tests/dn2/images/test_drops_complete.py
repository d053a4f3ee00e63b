"""When a drop is told: looks at changing listings, one after the other, some of which die before they are noted."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dn2.images.drops import complete
from dn2.records import Drop, SeenDrop

URIS = ("file:///in/a", "file:///in/b")


@dataclass(frozen=True)
class Scene:
    """What lies there when somebody looks, and what becomes of the look."""

    pause: int  # seconds since the look before
    drops: tuple[Drop, ...]
    noted: bool  # whether the look is remembered, or dies first
    scores: bool  # whether what was told is scored before the next look


@dataclass(frozen=True)
class Told:
    """One look, with all that went before it."""

    now: int
    scene: Scene
    due: tuple[Drop, ...]
    scored: frozenset[str]  # ids, before the look
    before: tuple[Told, ...] = field(repr=False)  # noted looks, oldest first

    def run(self, drop: Drop) -> list[Told]:
        """Noted looks at the end of the history that all saw the drop just as it is now."""
        found: list[Told] = []
        for look in reversed(self.before):
            if drop.id not in {each.id for each in look.scene.drops}:
                break
            found.insert(0, look)
        return found


@dataclass(frozen=True)
class Story:
    """Looks at one scene after the other, with the settings they were made with."""

    by_marker: bool
    settle: int
    again: int
    looks: tuple[Told, ...]


@st.composite
def scenes(draw: st.DrawFn) -> Scene:
    drops = []
    for uri in URIS:
        if draw(st.sampled_from([True, True, True, False])):
            content, images = draw(st.integers(0, 1)), draw(st.sampled_from([3, 3, 3, 0]))
            drops.append(Drop(f"{uri}-{content}-{images}", uri, "parts", images, marked=draw(st.booleans())))
    noted = draw(st.sampled_from([True, True, True, False]))
    return Scene(draw(st.integers(0, 8)), tuple(drops), noted, scores=draw(st.booleans()))


@st.composite
def stories(draw: st.DrawFn) -> Story:
    by_marker, settle, again = draw(st.booleans()), draw(st.integers(0, 12)), draw(st.integers(1, 20))
    now, seen, scored = 1_000, {}, set()
    looks: list[Told] = []
    for scene in draw(st.lists(scenes(), max_size=25)):
        now += scene.pause
        due, remembered = complete(
            scene.drops,
            seen,
            scored.__contains__,
            now=float(now),
            by_marker=by_marker,
            settle_s=float(settle),
            again_s=float(again),
        )
        assert remembered.keys() == {drop.uri for drop in scene.drops}
        before = tuple(look for look in looks if look.scene.noted)
        looks.append(Told(now, scene, due, frozenset(scored), before))
        seen = remembered if scene.noted else seen
        if scene.scores:
            scored |= {drop.id for drop in due}
    return Story(by_marker, settle, again, tuple(looks))


@settings(deadline=None)
@given(stories())
def test_drop_is_not_told_before_it_is_complete(story: Story):
    """Complete is what is marked; without a marker, what stood still over two looks and the time to settle."""
    for look in story.looks:
        for drop in look.due:
            run = look.run(drop)
            assert drop.marked if story.by_marker else run and look.now - run[0].now >= story.settle


@settings(deadline=None)
@given(stories())
def test_drop_that_is_scored_is_never_told_again(story: Story):
    for look in story.looks:
        assert not {drop.id for drop in look.due} & look.scored


@settings(deadline=None)
@given(stories())
def test_drop_without_images_is_never_told(story: Story):
    for look in story.looks:
        assert all(drop.images for drop in look.due)


@settings(deadline=None)
@given(stories())
def test_unchanged_drop_is_not_told_again_before_its_time(story: Story):
    """Unless the look that told it died before it was noted."""
    for look in story.looks:
        for drop in look.due:
            earlier = [told.now for told in look.run(drop) if drop.id in {each.id for each in told.due}]
            assert all(look.now - then >= story.again for then in earlier)


@settings(deadline=None)
@given(stories())
def test_complete_drop_is_told_until_it_is_scored(story: Story):
    """At least once: what is complete, holds images, is not scored and was not told lately, is told now."""
    for look in story.looks:
        for drop in look.scene.drops:
            run = look.run(drop)
            is_complete = drop.marked if story.by_marker else bool(run) and look.now - run[0].now >= story.settle
            told = [other.now for other in run if drop.id in {each.id for each in other.due}]
            waits = story.again * 2 ** (min(len(told), 6) - 1)  # longer each time it was told in vain
            lately = bool(told) and look.now - told[-1] < waits
            if is_complete and drop.images and drop.id not in look.scored and not lately:
                assert drop in look.due


@pytest.mark.parametrize(
    ("by_marker", "settle", "told"),
    [
        (False, 10.0, [10, 70, 310]),
        (False, 0.0, [5, 65, 310]),
        (False, 50.0, [60, 350]),
        (True, 10.0, [0, 60, 300]),
    ],
)
def test_one_drop_over_time(by_marker: bool, settle: float, told: list[int]):
    """It stays as it is, is scored after 100 seconds, and changes at 300."""
    seen: dict[str, SeenDrop] = {}
    found = []
    for now in (0, 5, 10, 30, 60, 65, 69, 70, 120, 299, 300, 310, 350):
        drop = Drop("old" if now < 300 else "new", URIS[0], "parts", 3, marked=True)
        times = {"by_marker": by_marker, "settle_s": settle, "again_s": 60.0}
        due, seen = complete([drop], seen, lambda name, now=now: name == "old" and now > 100, now=now, **times)
        found += [now for _ in due]
    assert found == told


def test_drop_that_is_known_to_be_scored_is_not_looked_up_again():
    """A prefix with a thousand old drops must not ask the store a thousand times."""
    drop, asked = Drop("x", URIS[0], "parts", 3, marked=True), []
    times = {"by_marker": True, "settle_s": 0.0, "again_s": 1.0}
    _, seen = complete([drop], {}, lambda name: not asked.append(name), now=1.0, **times)
    assert complete([drop], seen, lambda name: not asked.append(name), now=9.0, **times) == ((), seen)
    assert asked == ["x"]


def test_state_of_a_drop_that_is_gone_is_forgotten():
    times = {"now": 2.0, "by_marker": True, "settle_s": 1.0, "again_s": 1.0}
    assert complete([], {URIS[0]: SeenDrop("x", 1.0)}, lambda _: False, **times) == ((), {})


def test_clock_that_was_set_back_makes_no_drop_wait_for_it():
    """Seen and told an hour in the future: counted from now on."""
    drop = Drop("id", "file:///in/a", "parts", 3, marked=False)
    how = {"by_marker": False, "settle_s": 10.0, "again_s": 20.0}
    seen = {drop.uri: SeenDrop("id", since=4_600.0, told=4_600.0)}
    due, seen = complete([drop], seen, lambda _: False, now=1_000.0, **how)
    assert (due, seen) == ((), {drop.uri: SeenDrop("id", since=1_000.0, told=1_000.0)})
    due, _ = complete([drop], seen, lambda _: False, now=1_020.0, **how)
    assert due == (drop,)


def test_drop_that_waits_in_a_long_queue_is_told_less_and_less_often():
    drop = Drop("id", "file:///in/a", "parts", 3, marked=True)
    seen: dict[str, SeenDrop] = {}
    told = []
    for now in range(0, 20_000, 10):
        due, seen = complete([drop], seen, lambda _: False, now=float(now), by_marker=True, settle_s=0.0, again_s=100.0)
        told += [now for _ in due]
    assert told == [0, 100, 300, 700, 1_500, 3_100, 6_300, 9_500, 12_700, 15_900, 19_100]
