"""Flows that keep a store in order: merge manifest parts, and delete unused files."""

from __future__ import annotations

from prefect import flow

import dn2
import tasks.steps as step
from dn2.errors import Dn2Error
from dn2.records import Compacted, Pruned
from dn2.upkeep.compact import dataset_names
from flows.artifacts import display_compacted, display_pruned
from flows.parameters import CompactParameters, PruneParameters
from flows.watched import watched


@flow(name="compact")
def compact(parameters: CompactParameters) -> tuple[Compacted, ...]:
    """Merge the manifest parts of a dataset, or of each dataset of the store that has any, one after the other."""
    store = dn2.Store.open(parameters.store)
    store.check_writable()
    with watched():
        names = [parameters.dataset] if parameters.dataset is not None else dataset_names(store)
        done, failed = [], []
        for name in names:
            try:
                done.append(step.compact(parameters.store, name))
            except Dn2Error as error:  # a damaged dataset: the others are merged all the same
                failed.append(error)
        display_compacted(tuple(done), store.uri)
        if failed:
            raise failed[0]
    return tuple(done)


@flow(name="prune")
def prune(parameters: PruneParameters) -> Pruned:
    """List the unused files of a store; delete them if the parameters say yes."""
    if parameters.yes:
        dn2.Store.open(parameters.store).check_writable()
    with watched():
        found = step.prune(parameters.store, parameters.reports, parameters.age, yes=parameters.yes)
        display_pruned(found)
    return found
