"""What the command line says of what was done."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from dn2.reports import words
from dn2.words import bytes_in_words, many
from flows.cli.console import say, visible, warn
from flows.facts import Outcome

if TYPE_CHECKING:  # they load what a command that fails early does not need
    from dn2 import records
    from dn2.evaluation.demo import DemoFigures


def describe_dataset(done: records.Dataset) -> None:
    """Say what a source holds."""
    counts = f"{done.added} added, {done.changed} changed, {done.vanished} vanished"
    if not (done.added or done.changed or done.vanished):
        counts = "nothing changed, nothing written"
    say(f"dataset {done.name}: {done.images} images, {counts}; {done.ignored} other files ignored")


def describe_cleaning(done: records.Cleaning, seconds: float) -> None:
    """Say which training images would be dropped."""
    how = "estimated" if done.estimated else "as given"
    say(
        f"{done.dropped} of {done.images} images would be dropped, {done.kept} kept ({done.rule}); "
        f"{done.contamination:.1%} are taken for anomalies ({how}); {seconds:.1f} s"
    )
    if done.units is not None and done.low is not None and done.high is not None:
        say(f"{many(done.images, 'image')}, {many(done.units, 'unit')}; anomalies: {done.low:.1%} to {done.high:.1%}")
    for cluster in done.undecided:
        say(
            f"a kind apart, {many(cluster.images, 'image')} ({cluster.images / done.images:.1%}): normal or not? "
            f"--keep {cluster.id} or --drop-cluster {cluster.id}; it stays in until then"
        )
    say(f"report: {done.html}")


def describe_bank(done: records.BankVersion, store: str, seconds: float) -> None:
    """Say what a bank holds, and what its threshold promises."""
    if done.cleaning is not None:
        how = "estimated" if done.contamination_estimated else "as given"
        say(
            f"cleaned: {done.dropped} images dropped, {done.contamination:.1%} taken for anomalies ({how}), so the "
            f"threshold is an estimate; see {store}/{done.cleaning}/report.html"
        )
    say(
        f"bank {done.name}, version {done.version}: {done.images} normal images, {done.rejected} rejected, "
        f"{done.backbone}, k = {done.k}, {done.measure}"
    )
    say(f"index {words.index(done)}")
    for line in (words.fidelity(done), words.copies(done)):
        if line is not None:
            say(line)
    say(f"{_threshold(done)}; {seconds:.1f} s")
    if done.if_patients is not None:
        say(done.if_patients)


def _threshold(bank: records.BankVersion) -> str:
    return f"threshold {bank.threshold:.4g}: flags {bank.promise} ({bank.calibrated})"


def describe_additions(done: records.Growth, seconds: float) -> None:
    """Say what became of the images that were to be added to a bank."""
    bank = done.bank
    new = done.added + done.held_out > 0
    which = f", version {bank.version}:" if new else f": nothing new: version {bank.version} stays the current one;"
    say(f"bank {bank.name}{which} {words.additions(done)}")
    if done.copies:
        rest = done.copies - len(done.copy_uris)
        more = f" and {rest:,} more" if rest else ""
        say(visible(f"same bytes as an image that is in the bank or added: {', '.join(done.copy_uris)}{more}"))
    say(f"{many(bank.images, 'normal image')} {'now' if new else 'as before'}; {_threshold(bank)}; {seconds:.1f} s")


def describe_removals(done: records.Growth, seconds: float) -> None:
    """Say how many images were taken out of a bank."""
    bank = done.bank
    say(f"bank {bank.name}, version {bank.version}: {many(done.removed, 'image')} removed")
    say(f"{many(bank.images, 'normal image')} now; {_threshold(bank)}; {seconds:.1f} s")


def describe_kept_anomalies(bank: records.BankVersion, store: str) -> None:
    """Say what a version of a bank makes of the anomalies that are kept for it, if there are any."""
    from dn2.scoring.anomalies import evaluated
    from dn2.store.storage import Store

    describe_anomalies(evaluated(Store.open(store), bank))


def describe_anomalies(done: records.Anomalies) -> None:
    """Say what a bank makes of its confirmed anomalies, if it has any."""
    if done.uris:
        say(words.anomalies(done))
    if done.in_bank:
        name, ids = done.bank.name, " ".join(done.in_bank)
        warn(f"bank {name} holds {len(done.in_bank):,} of them: dn2 bank remove {ids} --bank {name}")


def describe_used(done: records.AnyBank, before: str | None) -> None:
    """Say which version of a bank is the current one now, and which was."""
    if before == done.version:
        say(f"bank {done.name}: version {done.version} is the current one already, nothing was changed")
        return
    rows = f"{done.things} normal {done.of}"
    was = "" if before is None else f", it was {before}"
    say(f"bank {done.name}: version {done.version} is the current one now{was}; {rows}, k = {done.k}, {done.metric}")


def describe_group_bank(done: records.GroupBankVersion, seconds: float) -> None:
    """Say what a bank of groups holds."""
    say(
        f"bank {done.name}, version {done.version}: {done.groups} normal groups, {done.content}, "
        f"{done.backbone}, pooling {done.pooling}, k = {done.k}, {done.metric}"
    )
    say(
        f"thresholds for groups of {done.sizes[0]} to {done.sizes[-1]} {done.counted}: flag about "
        f"{done.attainable_rate:.2%} of normal groups; {seconds:.1f} s"
    )


def describe_groups(done: records.GroupReport, out: str | None, seconds: float) -> None:
    """Say what a report of groups holds, and where it lies."""
    unscored = f", {done.unscored} could not be scored" if done.unscored else ""
    say(
        f"{done.anomalous} of {done.scored} groups are anomalous{unscored}; {done.images} images, {done.ungrouped} in "
        f"no group, {done.rejected} could not be read; {seconds:.1f} s"
    )
    say(
        f"threshold: for each size, at a false-alarm rate of {100 * done.false_alarm_rate:.4g}%; {done.selected} "
        f"groups are selected at a false-discovery rate of {100 * done.false_discovery_rate:.4g}%"
    )
    _end(done, out)


def describe_report(done: records.Report, out: str | None, seconds: float) -> None:
    """Say what a batch's report holds, and where it lies."""
    say(
        f"{done.anomalous} of {done.scored} images are anomalous (score above {done.threshold:.4g}), "
        f"{done.rejected} could not be read; {seconds:.1f} s"
    )
    say(
        f"threshold: {done.rule}; {done.selected} images are selected at a false-discovery rate of "
        f"{100 * done.false_discovery_rate:.4g}%"
    )
    if done.drift is not None:
        (warn if done.drift.drifted else say)(f"drift: {done.drift.words}")
    _end(done, out)


def _end(done: records.AnyReport, out: str | None) -> None:
    for doubt in words.doubts(done):
        warn(doubt)
    say(f"report: {done.html if out is None else Path(out) / 'report.html'}")


def describe_night(outcomes: Sequence[Outcome]) -> None:
    """Say what became of each source of a night."""
    for outcome in outcomes:
        if outcome.error is None:  # failures are told together, at the end
            say(f"{outcome.source}, bank {outcome.bank}: {outcome.in_words()}")
        if outcome.report is not None:
            _end(outcome.report, None)


def describe_demo(figures: DemoFigures) -> None:
    """Say how the demo's report compares with what is known about its images."""
    say("\nwhat is known about these images, compared with their scores:")
    say(f"demo_roc_auc: {figures.roc_auc:.4f}")
    for kind, value in figures.roc_auc_by_kind.items():
        say(f"demo_roc_auc_{kind}: {value:.4f}")
    for kind, value in figures.recall_by_kind.items():
        say(f"demo_recall_{kind}: {value:.4f}")
    say(f"demo_false_alarm_rate: {figures.false_alarm_rate:.4f}")
    for kind, count in figures.counts.items():
        say(f"demo_count_{kind}: {count}")
    hard = min(figures.recall_by_kind, key=lambda kind: figures.recall_by_kind[kind])
    say(
        f"\nHardest at this threshold: {hard} ({figures.recall_by_kind[hard]:.0%} found). With only "
        f"{figures.counts['good']} normal images to calibrate on, the threshold is the largest normal score; "
        f"more normal images would make it sharper."
    )


def describe_compacted(done: records.Compacted) -> None:
    """Say which manifest parts were merged; what was left apart has been told as a warning."""
    if done.part is None:
        say(f"dataset {done.dataset}: nothing to merge")
        return
    say(
        f"dataset {done.dataset}: {many(len(done.merged), 'manifest part')} merged into {done.part}, "
        f"{many(done.images, 'image')}, {many(done.shards, 'shard')} written; {words.size(done.size)}"
    )


def pruned_lines(found: records.Pruned) -> Iterator[str]:
    """Yield what is unused, kind by kind, with some paths, and whether it was deleted."""
    yield f"store {found.store}"
    for one in found.kinds:
        yield f"  {one.kind}: {one.count:,} ({words.size(one.size)})"
        yield from (f"    {path}" for path in one.examples)
        if one.count > len(one.examples):
            yield f"    and {one.count - len(one.examples):,} more"
    if found.vanished_rows:
        yield (
            f"rows of vanished or changed images in shards that also hold others: {found.vanished_rows:,} (about "
            f"{bytes_in_words(found.vanished_bytes)}); dn2 compact leaves them out"
        )
    if not found.kinds:
        yield "nothing to delete"
    elif found.removed:
        yield f"deleted: {words.size(found.size)}"
    else:
        yield f"nothing was deleted; --yes deletes {words.size(found.size)}"
