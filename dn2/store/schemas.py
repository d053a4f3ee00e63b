"""The columns of every Parquet file that dn2 writes, each with what it holds, and where such files lie."""

from __future__ import annotations

from dataclasses import dataclass

import pyarrow as pa

from dn2 import layout

_DESCRIPTION = b"description"  # key in the metadata of an Arrow field: readers outside dn2 see it too


@dataclass(frozen=True, slots=True)
class Schema:
    """A kind of Parquet file.

    Attributes:
        name: what the file's footer calls itself.
        version: raised whenever columns change meaning.
        columns: the Arrow schema; embeddings have their length set when the file is written.
        row: what a row stands for, in one sentence.
        path: where such files lie in a store, with placeholders.
    """

    name: str
    version: int
    columns: pa.Schema
    row: str = ""
    path: str = ""

    def with_dim(self, dim: int) -> Schema:
        """Return the same schema for embeddings of length `dim`."""
        index = self.columns.get_field_index("embedding")
        field = self.columns.field(index).with_type(pa.list_(pa.float16(), dim))
        return Schema(self.name, self.version, self.columns.set(index, field), self.row, self.path)

    def describe(self, column: str) -> str:
        """Return what a column holds."""
        text: bytes = (self.columns.field(column).metadata or {}).get(_DESCRIPTION, b"")
        return text.decode()


def _required(name: str, kind: pa.DataType, description: str) -> pa.Field:
    return pa.field(name, kind, nullable=False, metadata={_DESCRIPTION: description})


def _optional(name: str, kind: pa.DataType, description: str) -> pa.Field:
    return pa.field(name, kind, metadata={_DESCRIPTION: description})


_IMAGE_ID = _required("image_id", pa.string(), "32 hex digits of the sha256 of the image's URI and version")
_URI = _required("uri", pa.string(), "where the image lies, an absolute URI")
_GROUPING = [
    _optional("group_id", pa.string(), "the set this image belongs to, where known"),
    _optional("label", pa.string(), "what is known about it; never used for scoring"),
]
_VECTOR = pa.list_(pa.float16(), 1)
_DISTANCE = "mean squared distance to the k nearest rows of the bank; with scale local over the mean of their scales"
_TILE = "number of the tile, row by row from 0"

MANIFEST = Schema(
    "dn2.manifest",
    1,
    pa.schema(
        [
            _IMAGE_ID,
            _URI,
            _required(
                "version",
                pa.string(),
                "etag, or size and modification time; absent for a file that a table lists and that is not there",
            ),
            _required("size", pa.int64(), "bytes; -1 where the source does not tell"),
            _required("present", pa.bool_(), "false: a tombstone, the image vanished"),
            *_GROUPING,
        ]
    ),
    "A new, changed or vanished image.",
    layout.manifest.text,
)

EMBEDDINGS = Schema(
    "dn2.embeddings",
    1,
    pa.schema(
        [
            _IMAGE_ID,
            _URI,
            *_GROUPING,
            _optional(
                "embedding",
                _VECTOR,
                "one number for each channel of the network, and that for each tile; null where rejected",
            ),
            _optional("content_sha256", pa.string(), "of the file's bytes; null where it could not be read"),
            _optional("width", pa.int32(), "pixels, as shown (EXIF orientation applied); null where rejected"),
            _optional("height", pa.int32(), "pixels, as shown (EXIF orientation applied); null where rejected"),
            _required("size", pa.int64(), "bytes"),
            _optional("reject_reason", pa.string(), "why the image could not be read; null where embedded"),
        ]
    ),
    "A present image of one slice of a manifest part, embedded or rejected.",
    layout.embeddings.text,
)

THUMBNAILS = Schema(
    "dn2.thumbnails",
    1,
    pa.schema([_IMAGE_ID, _required("thumbnail", pa.binary(), "a small JPEG of the image")]),
    "An image that was embedded.",
    layout.shard_thumbnails.text,
)

PROBES = Schema(
    "dn2.probes",
    1,
    pa.schema(
        [
            _required("picture", pa.binary(), "JPEG or PNG bytes"),
            _optional("embedding", _VECTOR, "what every process must make of it again"),
        ]
    ),
    "A picture that every process must embed alike. A bank version has a copy.",
    layout.probes.text,
)

REJECTS = Schema(
    "dn2.rejects",
    1,
    pa.schema([_IMAGE_ID, _URI, _required("reject_reason", pa.string(), "why the image could not be read")]),
    "An image that could not be read, of a training that stopped.",
    layout.rejects.text,
)

CLEANING = Schema(
    "dn2.cleaning",
    1,
    pa.schema(
        [
            _IMAGE_ID,
            _URI,
            *_GROUPING,
            _required("score", pa.float32(), "how odd it is among the training images; higher is odder"),
            _required("rank", pa.int64(), "1 is the oddest; copies of one image count once and share a rank"),
            _required("kept", pa.bool_(), "whether it goes into the bank"),
            _optional("reason", pa.string(), "why it was dropped: impurity or margin; null where kept"),
            _optional("cluster", pa.string(), "id of the cluster apart from the main body that it belongs to, if any"),
        ]
    ),
    "A training image that could be read, kept or dropped.",
    layout.cleaning_rows.text,
)

BANK_ROWS = Schema(
    "dn2.bank_rows",
    1,
    pa.schema(
        [
            _IMAGE_ID,
            _URI,
            _required("content_sha256", pa.string(), "of the file's bytes"),
            *_GROUPING,
            _required("shard", pa.string(), "the embedding shard it came from; beside that lies its thumbnail"),
            _optional("tile", pa.int32(), f"{_TILE}; null where images are not cut into tiles"),
        ]
    ),
    "A normal image, or a tile of one; its vector is the row of the same number in the .npy file beside it.",
    f"{layout.bank_segment.text}.parquet",
)

CELLS = Schema(
    "dn2.cells",
    1,
    pa.schema(
        [
            _required("centroid", pa.list_(pa.float32()), "the mean of the cell's vectors"),
            _required("rows", pa.int64(), "how many rows of the segment lie in the cell; cells follow their order"),
        ]
    ),
    "A k-means cell of a bank segment whose index is ivf.",
    layout.segment_cells(layout.bank_segment.text),
)

FOUND = Schema(
    "dn2.found",
    1,
    pa.schema(
        [
            _IMAGE_ID,
            _required("rows", pa.list_(pa.int64()), "rows of the bank, nearest first; -1 where there are fewer"),
            _required("distances", pa.list_(pa.float32()), "squared distances to them"),
        ]
    ),
    "An image of one shard, and its neighbours in some segments of a bank larger than the memory.",
    layout.found.text,
)

CALIBRATION = Schema(
    "dn2.calibration",
    1,
    pa.schema(
        [
            _IMAGE_ID,
            *_GROUPING,
            _required("score", pa.float32(), _DISTANCE),
            _optional("unit", pa.int64(), "its unit: what is not independent has one number; null: each is its own"),
        ]
    ),
    "A normal image that did not help to make its own score.",
    layout.bank_calibration.text,
)

SCALES = Schema(
    "dn2.scales",
    1,
    pa.schema(
        [
            _IMAGE_ID,
            _optional(
                "scale",
                pa.float32(),
                "how far its own neighbours lie, a squared distance; null where it was taken out of the bank",
            ),
        ]
    ),
    "A row of a bank whose scores are scaled locally, segment by segment in the order of their rows.",
    layout.bank_scales.text,
)

ANOMALIES = Schema(
    "dn2.anomalies",
    1,
    pa.schema(
        [
            _optional("image_id", pa.string(), "id of the embedded image; null where it is not embedded"),
            _URI,
            _required("content_sha256", pa.string(), "of the file's bytes: by it the image is known again"),
            _optional("shard", pa.string(), "the embedding shard it stands in; null where it is not embedded"),
        ]
    ),
    "A confirmed anomaly: it never enters the bank, and shows what the bank finds.",
    layout.bank_anomalies.text,
)

REFERENCE = Schema(
    "dn2.reference",
    1,
    pa.schema(
        [
            _required("role", pa.string(), "image: a normal one; centre: of a kind of them; axis: a principal one"),
            _optional("inside", pa.bool_(), "of an image, whether its calibration score has p > 0.05; null for others"),
            _optional("embedding", _VECTOR, "its vector; of an image that is cut into tiles their mean"),
        ]
    ),
    "What the whole of a batch is compared with. Made when something is scored with the version first.",
    layout.bank_reference.text,
)

_SCORE = [
    _IMAGE_ID,
    _URI,
    *_GROUPING,
    _optional("score", pa.float32(), f"{_DISTANCE}; null where rejected"),
    _optional("p_value", pa.float64(), "how rare a score this high is among normal images; null where rejected"),
]
_WORST_TILE = _optional("tile", pa.int32(), f"{_TILE}, with this score, the largest of all; null where there are none")
_NEIGHBORS = [
    _optional(
        "neighbor_ids",
        pa.list_(pa.string()),
        "image_id of the k nearest, nearest first; for a centre that of the image nearest to it; null where rejected",
    ),
    _optional("neighbor_uris", pa.list_(pa.string()), "where they lie; null where rejected"),
    _optional("neighbor_distances", pa.list_(pa.float32()), "their squared distances; null where rejected"),
    _optional("neighbor_tiles", pa.list_(pa.int32()), "which tile of each of them; null where there are none"),
    _optional("reject_reason", pa.string(), "why the image could not be read; null where scored"),
]

SCORES = Schema(
    "dn2.scores",
    1,
    pa.schema([*_SCORE, _WORST_TILE, *_NEIGHBORS]),
    "An image of a batch, scored or rejected, with nothing decided about it.",
    layout.score_part.text,
)

REPORT = Schema(
    "dn2.report",
    2,
    pa.schema(
        [
            *_SCORE,
            _WORST_TILE,
            _optional("q_value", pa.float64(), "the p-value adjusted to the whole batch; null where rejected"),
            _required("threshold", pa.float32(), "a score above it is anomalous"),
            _optional("is_anomaly", pa.bool_(), "score above threshold; null where rejected"),
            _optional("selected", pa.bool_(), "q-value at most the false-discovery rate; null where rejected"),
            *_NEIGHBORS,
        ]
    ),
    "An image of a batch, scored or rejected.",
    layout.report_part.text,
)

_GROUP = [
    _required("group_id", pa.string(), "the group"),
    _optional("label", pa.string(), "what is known about it; null where its images have none, or several"),
]

BANK_GROUPS = Schema(
    "dn2.bank_groups",
    1,
    pa.schema(
        [
            *_GROUP,
            _required("source", pa.string(), "where its images came from"),
            _required("members", pa.int64(), "images that could be read"),
            _required("content", pa.uint64(), "sum of hashes of its images' bytes: by it the group is known again"),
            _required("example_ids", pa.list_(pa.string()), "image_id of some of its images, to be shown"),
            _required("example_shards", pa.list_(pa.string()), "embedding shards beside which their thumbnails lie"),
        ]
    ),
    "A normal group; its vector is the row of the same number in the .npy file beside it.",
    f"{layout.bank_segment.text}.parquet",
)

GROUP_CALIBRATION = Schema(
    "dn2.group_calibration",
    1,
    pa.schema(
        [
            _required("size", pa.int64(), "images drawn from a normal group"),
            _required("group_id", pa.string(), "which"),
            _required("distance", pa.float32(), "mean squared distance to the k nearest of the other normal groups"),
        ]
    ),
    "A part of a normal group, of a certain size.",
    layout.bank_calibration.text,
)

GROUPS = Schema(
    "dn2.groups",
    1,
    pa.schema(
        [
            *_GROUP,
            _required("members", pa.int64(), "images that could be read"),
            _required("rejected", pa.int64(), "images that could not"),
            _optional(
                "distance", pa.float32(), "mean squared distance to the k nearest normal groups; null where not scored"
            ),
            _optional("score", pa.float32(), "the distance over that of a typical normal group of the same size"),
            _optional("p_value", pa.float64(), "how rare a score this high is among normal groups of about this size"),
            _optional("q_value", pa.float64(), "the p-value adjusted to the whole batch"),
            _optional("threshold", pa.float32(), "for groups of this size"),
            _optional("is_anomaly", pa.bool_(), "score above threshold"),
            _optional("selected", pa.bool_(), "q-value at most the false-discovery rate"),
            _optional("neighbor_ids", pa.list_(pa.string()), "group_id of the k nearest, nearest first"),
            _optional("neighbor_distances", pa.list_(pa.float32()), "their squared distances"),
            _optional("reason", pa.string(), "why it was not scored; null where scored"),
        ]
    ),
    "A group of a batch, scored or not.",
    f"{layout.report.text}/{layout.GROUPS_FILE}",
)

MEMBERS = Schema(
    "dn2.members",
    1,
    pa.schema(
        [
            _optional("group_id", pa.string(), "its group; null for an image that belongs to none"),
            _optional("label", pa.string(), "what is known about it; never used"),
            _IMAGE_ID,
            _URI,
            _optional(
                "contribution", pa.float32(), "its part of the group's distance; null where the group has no score"
            ),
            _optional("rank", pa.int64(), "1 contributes most to its group's distance"),
            _optional("reject_reason", pa.string(), "why the image could not be read; null where it could"),
        ]
    ),
    "An image of a batch of groups.",
    layout.report_part.text,
)

HISTORY = Schema(
    "dn2.history",
    1,
    pa.schema(
        [
            _required("report", pa.string(), "the report that was made first, relative to the store"),
            _required("source", pa.string(), "where the batch came from"),
            _required("bank", pa.string(), "name of the bank"),
            _required("version", pa.string(), "the bank's version"),
            _required("of", pa.string(), "what was scored and is counted: images or groups"),
            _required("when", pa.timestamp("us", "UTC"), "when the report was made"),
            _required("images", pa.int64(), "images in the batch"),
            _required("rejected", pa.int64(), "of them, images that could not be read"),
            _required("scored", pa.int64(), "images or groups with a score"),
            _required("anomalous", pa.int64(), "images or groups above the threshold"),
            _required("selected", pa.int64(), "images or groups whose q-value is at most the false-discovery rate"),
            _required("anomalous_rate", pa.float64(), "anomalous over scored; 0 if none was scored"),
            _optional("verdict", pa.string(), "drift: steady, anomalies, kind or moved; null where it cannot be told"),
            _optional("units", pa.int64(), "images that this rests on, of those that depend on each other one"),
            _optional("outside", pa.float64(), "share of them with p <= 0.05"),
            _optional("kind", pa.float64(), "share of them that is a kind which the bank does not know"),
            _optional(
                "ks", pa.float64(), "Kolmogorov and Smirnov's distance of the scores inside to the calibration's"
            ),
            _optional("shift", pa.float64(), "how far the mean of the images inside has moved, in standard deviations"),
            _optional("psi", pa.float64(), "population stability index of the kinds of images inside"),
            _optional("levels", pa.list_(pa.int64()), "how many of them have a p-value in each twentieth"),
            _optional("recent_batches", pa.int64(), "batches of this version and source that are looked at together"),
            _optional(
                "recent_ks", pa.float64(), "distance (Kolmogorov-Smirnov) of their p-values inside to uniform ones"
            ),
            _optional("stale", pa.bool_(), "whether that is more than chance, and large enough to matter"),
        ]
    ),
    "A batch that was scored. Written once, and never changed.",
    layout.history.text,
)

SCHEMAS = (
    MANIFEST,
    EMBEDDINGS,
    THUMBNAILS,
    PROBES,
    REJECTS,
    CLEANING,
    BANK_ROWS,
    CELLS,
    CALIBRATION,
    SCALES,
    ANOMALIES,
    REFERENCE,
    FOUND,
    SCORES,
    REPORT,
    BANK_GROUPS,
    GROUP_CALIBRATION,
    GROUPS,
    MEMBERS,
    HISTORY,
)
