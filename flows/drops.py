"""Flow: look for complete drops below the watched prefixes, and tell of them; `flows.nightly` scores them."""

from __future__ import annotations

from prefect import flow
from prefect.logging import get_run_logger

import tasks.steps as step
from dn2.errors import Dn2Error
from dn2.records import Drop, Look
from flows.artifacts import display_looks
from flows.events import tell_drop
from flows.facts import reason
from flows.parameters import WatchParameters
from flows.sources_file import SourcesFile, WatchedPrefix, read_sources
from flows.watched import watched


class WatchError(Dn2Error, RuntimeError):
    """One or more prefixes could not be looked at; the others were."""


@flow(name="watch-drops")
def watch_drops(parameters: WatchParameters) -> tuple[Drop, ...]:
    """Emit `dn2.drop.ready` for every drop that is complete and not scored; return these drops.

    At least once: what was told is noted after the server has taken the event, and told again if no report follows.

    Raises:
        WatchError: some prefixes could not be looked at; the message says which, and why.
    """
    file = read_sources(parameters.sources)
    looks: list[Look] = []
    failures: list[tuple[str, str]] = []
    with watched():
        for prefix in file.watch:
            try:
                looks.append(_look(prefix, file))
            except Exception as error:
                get_run_logger().exception("%s failed", prefix.prefix)
                failures.append((prefix.prefix, reason(error)))
        display_looks(looks, failures)
    if failures:
        reasons = "; ".join(f"{prefix}: {why}" for prefix, why in failures)
        raise WatchError(f"{len(failures)} of {len(file.watch)} prefixes could not be looked at: {reasons}")
    return tuple(drop for look in looks for drop in look.due)


def _look(prefix: WatchedPrefix, file: SourcesFile) -> Look:
    found = step.look(
        prefix.prefix,
        file.store,
        prefix.bank,
        unit=prefix.unit,
        marker=prefix.marker,
        settle_s=60 * prefix.settle_minutes,
        again_s=60 * prefix.again_minutes,
    )
    settings = {name: getattr(file, name).model_dump(mode="json") for name in ("embed", "score", "group_score", "tell")}
    for drop in found.due:
        get_run_logger().info("drop %s is complete: %d images, bank %s", drop.uri, drop.images, drop.bank)
        tell_drop(
            drop,
            found.remembered[drop.uri],
            file.store,
            {"pattern": prefix.pattern, "groups": prefix.groups, **settings},
        )
    if found.loose:
        get_run_logger().warning(
            "%s: %d images lie outside the folders and belong to no drop", prefix.prefix, found.loose
        )
    step.remember(found, file.store)
    return found
