"""Where each thing lies in a store: every name and path that dn2 gives, built and known again by one definition.

A text that `parse` knows is rebuilt from its fields letter for letter. None leads out of its folder: it has no empty or
dotted step, no backslash and no control character.
"""

from __future__ import annotations

import re
from typing import Annotated, Any

from pydantic import AfterValidator

from dn2.checks import NAME
from dn2.errors import SchemaError

GROUPS_FILE = "groups.parquet"  # of a report of groups
PAGE = "report.html"
PICTURE = "histogram.png"  # for Prefect's pages; report.html draws its own. Never exported: an image in a source
ROWS = "rows.parquet"  # of a cleaning
SUMMARY = "summary.json"  # written last: a folder without it is no report

_WIDTHS = {"start": 9, "stop": 9, "number": 5, "first": 4, "behind": 4}  # digits at least
_HEX = "[0-9a-f]{16}"
_FIELDS = {  # what may stand in place of a field, and an example
    "name": (NAME.pattern, "parts"),
    "dataset": (NAME.pattern, "photos"),
    "embedder": (r"[^/\\\x00-\x1f\x7f]+-[0-9a-f]{12}", "resnet50-0123456789ab"),
    "part": (f"[0-9]{{1,18}}-{_HEX}(?:-all)?", "000001-0123456789abcdef"),
    "settings": ("[0-9a-f]{8}", "01234567"),
    "fingerprint": (_HEX, "0123456789abcdef"),
    "version": (_HEX, "0123456789abcdef"),
    "segment": (f"{_HEX}(?:-[0-9]{{4,18}}|-added|-held)?", "0123456789abcdef-added"),
    "identity": ("[0-9a-f]{32}", "0123456789abcdef0123456789abcdef"),
    "unfinished": ("[0-9a-f]{32}(?:[.][a-z0-9]{1,9})?", "0123456789abcdef0123456789abcdef.parquet"),
    "locked": (f"(?:banks|manifests)/{NAME.pattern}", "banks/parts"),
    "file of a cleaning": ("|".join(map(re.escape, (SUMMARY, PAGE, ROWS))), ROWS),
    "file of a report": ("|".join(map(re.escape, (SUMMARY, PAGE, PICTURE, GROUPS_FILE))), PAGE),
    **{name: (f"[0-9]{{{width}}}|[1-9][0-9]{{{width},17}}", f"{0:0{width}d}") for name, width in _WIDTHS.items()},
}


class Form:
    """A kind of name or path: calling it builds one, `parse` knows one again.

    Attributes:
        text: how it looks, with fields in angle brackets.
        example: one of them.
    """

    def __init__(self, text: str) -> None:
        self.text = text
        self._fields = re.findall("<([^>]+)>", text)
        self.example = self._filled(_FIELDS[name][1] for name in self._fields)
        pieces = [re.escape(one) for one in re.split("<[^>]+>", text)]
        fields = [f"({_FIELDS[name][0]})" for name in self._fields]
        self._pattern = re.compile("".join(a + b for a, b in zip(pieces, [*fields, ""], strict=True)), re.ASCII)

    def _filled(self, values: Any) -> str:
        filled = iter(values)
        return re.sub("<[^>]+>", lambda _: str(next(filled)), self.text)

    def __call__(self, *values: str | int) -> str:
        """Return the name or path with these values in place of its fields, in their order."""
        pairs = [*zip(self._fields, values, strict=True)]
        return self._filled(f"{value:0{_WIDTHS[name]}d}" if name in _WIDTHS else value for name, value in pairs)

    def parse(self, text: str) -> dict[str, Any] | None:
        """Return the fields of a name or path, numbers as such; None if it is not of this kind."""
        found = self._pattern.fullmatch(text)
        if found is None:
            return None
        pairs = zip(self._fields, found.groups(), strict=True)
        return {name: int(value) if name in _WIDTHS else value for name, value in pairs}

    def check(self, text: str) -> str:
        """Return a name or path that was read from a file, if it is of this kind.

        Raises:
            SchemaError: it is not.
        """
        if self.parse(text) is None:
            raise SchemaError(f"got {text!r:.100}, expected {self.text}, such as {self.example}")
        return text


manifests = Form("manifests/<dataset>")  # the folder of a dataset's manifest parts
manifest = Form("manifests/<dataset>/<part>.parquet")
shards = Form("embeddings/<embedder>/<dataset>")  # a folder
embeddings = Form(f"{shards.text}/<part>-<start>-<stop>-<settings>.parquet")  # one embedding shard
shard_thumbnails = Form(embeddings.text.replace(".parquet", ".thumbnails.parquet"))
probes = Form("embeddings/<embedder>/probes.parquet")  # an embedder's probe pictures and their embeddings
rejects = Form("rejects/<dataset>/<fingerprint>.parquet")  # images that stopped a training
cleaning = Form("cleaning/<fingerprint>")  # a folder
cleaning_rows = Form(f"cleaning/<fingerprint>/{ROWS}")  # kept and dropped images
_cleaning_file = Form("cleaning/<fingerprint>/<file of a cleaning>")
bank = Form("banks/<name>")  # a folder
bank_segment = Form("banks/<name>/segments/<segment>")  # .npy (vectors) and .parquet (their rows) are appended
bank_calibration = Form("banks/<name>/versions/<version>.calibration.parquet")  # a version's calibration scores
bank_scales = Form("banks/<name>/versions/<version>.scales.parquet")  # of the rows of a version, if it scales locally
bank_probes = Form("banks/<name>/versions/<version>.probes.parquet")  # what a process must reproduce before it scores
bank_reference = Form("banks/<name>/versions/<version>.reference.parquet")  # what batches are compared with
bank_version = Form("banks/<name>/versions/<version>.json")  # the file that makes a version whole
bank_versions = Form("banks/<name>/versions")  # a folder
bank_pointer = Form("banks/<name>/current.json")  # names a bank's current version
bank_anomalies = Form("banks/<name>/anomalies.parquet")  # confirmed anomalies: they never enter the bank
part = Form("part-<number>.parquet")  # in a folder of scores or of a report
scores = Form("scores/<name>/<fingerprint>")  # the folder of a batch's scores, of which reports are made
score_part = Form(f"{scores.text}/{part.text}")
found = Form(f"{scores.text}/found-<first>-<behind>/{part.text}")  # neighbours in some segments of a bank
reports = Form("reports/<name>")  # a folder
report = Form("reports/<name>/<fingerprint>")  # a folder
_report_file = Form(f"{report.text}/<file of a report>")
report_part = Form(f"{report.text}/{part.text}")
histories = Form("history/<name>")  # a folder
history = Form("history/<name>/<fingerprint>.parquet")  # one batch that this bank has scored
lock = Form(".locks/<locked>")
watermark = Form("watermarks/<name>/<dataset>/<part>-<version>.json")  # this version has scored this manifest part
watermarks = Form("watermarks/<name>/<dataset>")  # a folder
drop = Form("drops/<identity>.json")  # says: this drop was scored
watch = Form("watches/<fingerprint>.json")  # what is known about the drops of a watched prefix
temporary = Form(".tmp/<unfinished>")
_part = Form("<part>")


def is_part(name: object) -> bool:
    """Return whether something that was read from a file is the name of a manifest part."""
    return isinstance(name, str) and _part.parse(name) is not None


def check_report_part(name: str) -> str:
    """Return the name of a report's Parquet file that was read from its summary, if it is one.

    Raises:
        SchemaError: it is not.
    """
    return name if name == GROUPS_FILE else part.check(name)


Version = Annotated[str, AfterValidator(Form("<version>").check)]
Embedder = Annotated[str, AfterValidator(Form("<embedder>").check)]
SegmentName = Annotated[str, AfterValidator(Form("<segment>").check)]
DropId = Annotated[str, AfterValidator(Form("<identity>").check)]
ReportPart = Annotated[str, AfterValidator(check_report_part)]
ShardPath = Annotated[str, AfterValidator(embeddings.check)]
ScorePart = Annotated[str, AfterValidator(score_part.check)]
ScoresFolder = Annotated[str, AfterValidator(scores.check)]
CleaningFolder = Annotated[str, AfterValidator(cleaning.check)]

_REMOVABLE = (
    manifest,
    embeddings,
    shard_thumbnails,
    probes,
    watermark,
    rejects,
    _cleaning_file,
    score_part,
    found,
    _report_file,
    report_part,
    temporary,
)


def is_removable(path: str) -> bool:
    """Return whether a path is one that dn2 gives to a file that may be removed one day."""
    return any(form.parse(path) is not None for form in _REMOVABLE)


def thumbnails(shard: str) -> str:
    """Return the path of the thumbnails beside an embedding shard.

    Raises:
        SchemaError: the path is none of a shard.
    """
    return f"{embeddings.check(shard).removesuffix('.parquet')}.thumbnails.parquet"


def bank_cells(segment: str) -> str:
    """Return the path of the cells of a bank of groups whose pooling is a histogram, beside its segment."""
    return f"{segment}.cells.npy"


def segment_cells(segment: str) -> str:
    """Return the path of the k-means cells in which the rows of a bank segment lie."""
    return f"{segment}.cells.parquet"
