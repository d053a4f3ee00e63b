"""Flow: find what of a store nobody needs any more, and remove it if asked to."""

from __future__ import annotations

from prefect import flow

import dn2
import tasks.steps as step
from dn2.records import Pruned
from flows.artifacts import show_pruned
from flows.parameters import PruneParameters
from flows.watched import watched


@flow(name="prune")
def prune(parameters: PruneParameters) -> Pruned:
    """Say what nobody needs any more; it is removed only if the parameters say yes."""
    if parameters.yes:
        dn2.Store.open(parameters.store).check_writable()
    with watched():
        found = step.prune(parameters.store, parameters.reports, parameters.age, yes=parameters.yes)
        show_pruned(found)
    return found
