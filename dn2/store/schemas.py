"""The columns of every Parquet file that dn2 writes."""

from __future__ import annotations

from dataclasses import dataclass

import pyarrow as pa


@dataclass(frozen=True, slots=True)
class Schema:
    """A kind of Parquet file.

    Attributes:
        name: what the file's footer calls itself.
        version: raised whenever columns change meaning.
        columns: the Arrow schema; embeddings have their length set when the file is written.
    """

    name: str
    version: int
    columns: pa.Schema

    def with_dim(self, dim: int) -> Schema:
        """Return the same schema for embeddings of length `dim`."""
        index = self.columns.get_field_index("embedding")
        field = pa.field("embedding", pa.list_(pa.float16(), dim))
        return Schema(self.name, self.version, self.columns.set(index, field))


def _required(name: str, kind: pa.DataType) -> pa.Field:
    return pa.field(name, kind, nullable=False)


_GROUPING = [
    pa.field("group_id", pa.string()),  # the set this image belongs to, where known
    pa.field("label", pa.string()),  # what is known about it; never used for scoring
]

MANIFEST = Schema(
    "dn2.manifest",
    1,
    pa.schema(
        [
            _required("image_id", pa.string()),  # 32 hex digits of the sha256 of (uri, version)
            _required("uri", pa.string()),
            _required("version", pa.string()),  # etag, or size and modification time
            _required("size", pa.int64()),  # bytes; -1 where the source does not tell
            _required("present", pa.bool_()),  # false: a tombstone, the image vanished
            *_GROUPING,
        ]
    ),
)

EMBEDDINGS = Schema(
    "dn2.embeddings",
    1,
    pa.schema(
        [
            _required("image_id", pa.string()),
            _required("uri", pa.string()),
            *_GROUPING,
            pa.field("embedding", pa.list_(pa.float16(), 1)),  # null where rejected
            pa.field("content_sha256", pa.string()),  # of the file's bytes; null where it could not be read
            pa.field("width", pa.int32()),  # pixels, as shown (EXIF orientation applied)
            pa.field("height", pa.int32()),
            _required("size", pa.int64()),  # bytes
            pa.field("reject_reason", pa.string()),  # null where embedded
        ]
    ),
)

THUMBNAILS = Schema(
    "dn2.thumbnails",
    1,
    pa.schema([_required("image_id", pa.string()), _required("thumbnail", pa.binary())]),  # JPEG
)

PROBES = Schema(
    "dn2.probes",
    1,
    pa.schema([_required("picture", pa.binary()), pa.field("embedding", pa.list_(pa.float16(), 1))]),
)

REJECTS = Schema(
    "dn2.rejects",
    1,
    pa.schema([_required(name, pa.string()) for name in ("image_id", "uri", "reject_reason")]),
)

CLEANING = Schema(
    "dn2.cleaning",
    1,
    pa.schema(
        [
            _required("image_id", pa.string()),
            _required("uri", pa.string()),
            *_GROUPING,
            _required("score", pa.float32()),  # how odd it is among the training images; higher is odder
            _required("rank", pa.int64()),  # 1 is the oddest
            _required("kept", pa.bool_()),
            pa.field("reason", pa.string()),  # why it was dropped: impurity or margin; null where kept
        ]
    ),
)

BANK_ROWS = Schema(
    "dn2.bank_rows",
    1,
    pa.schema(
        [
            _required("image_id", pa.string()),
            _required("uri", pa.string()),
            _required("content_sha256", pa.string()),
            *_GROUPING,
            _required("shard", pa.string()),  # embedding shard it came from: where its thumbnail lies
        ]
    ),
)

CELLS = Schema(
    "dn2.cells",
    1,
    pa.schema([_required("centroid", pa.list_(pa.float32())), _required("rows", pa.int64())]),  # in this order
)

FOUND = Schema(
    "dn2.found",
    1,
    pa.schema(
        [
            _required("image_id", pa.string()),
            _required("rows", pa.list_(pa.int64())),  # of the bank, nearest first; -1 where there are fewer
            _required("distances", pa.list_(pa.float32())),  # squared
        ]
    ),
)

CALIBRATION = Schema(
    "dn2.calibration",
    1,
    pa.schema([_required("image_id", pa.string()), *_GROUPING, _required("score", pa.float32())]),
)

_SCORE = [
    _required("image_id", pa.string()),
    _required("uri", pa.string()),
    *_GROUPING,
    pa.field("score", pa.float32()),  # mean squared distance to the k nearest; null where rejected
    pa.field("p_value", pa.float64()),
]
_NEIGHBORS = [
    pa.field("neighbor_ids", pa.list_(pa.string())),  # nearest first
    pa.field("neighbor_uris", pa.list_(pa.string())),
    pa.field("neighbor_distances", pa.list_(pa.float32())),  # squared
    pa.field("reject_reason", pa.string()),  # null where scored
]

SCORES = Schema("dn2.scores", 1, pa.schema([*_SCORE, *_NEIGHBORS]))

REPORT = Schema(
    "dn2.report",
    2,
    pa.schema(
        [
            *_SCORE,
            pa.field("q_value", pa.float64()),  # the p-value adjusted to the whole batch; null where rejected
            _required("threshold", pa.float32()),
            pa.field("is_anomaly", pa.bool_()),  # score > threshold; null where rejected
            pa.field("selected", pa.bool_()),  # q_value <= false-discovery rate; null where rejected
            *_NEIGHBORS,
        ]
    ),
)

_GROUP = [
    _required("group_id", pa.string()),
    pa.field("label", pa.string()),  # null where the members have none, or several
]

BANK_GROUPS = Schema(
    "dn2.bank_groups",
    1,
    pa.schema(
        [
            *_GROUP,
            _required("source", pa.string()),
            _required("members", pa.int64()),
            _required("content", pa.uint64()),
            _required("example_ids", pa.list_(pa.string())),  # some of its images, to be shown
            _required("example_shards", pa.list_(pa.string())),  # where their thumbnails lie
        ]
    ),
)

GROUP_CALIBRATION = Schema(
    "dn2.group_calibration",
    1,
    pa.schema(
        [
            _required("size", pa.int64()),  # images drawn from a normal group
            _required("group_id", pa.string()),  # which
            _required("distance", pa.float32()),  # to the k nearest of the other normal groups
        ]
    ),
)

GROUPS = Schema(
    "dn2.groups",
    1,
    pa.schema(
        [
            *_GROUP,
            _required("members", pa.int64()),
            _required("rejected", pa.int64()),
            pa.field("distance", pa.float32()),  # mean squared distance to the k nearest; null where not scored
            pa.field("score", pa.float32()),  # distance over that of a typical normal group of the same size
            pa.field("p_value", pa.float64()),
            pa.field("q_value", pa.float64()),
            pa.field("threshold", pa.float32()),  # for groups of this size
            pa.field("is_anomaly", pa.bool_()),  # score > threshold
            pa.field("selected", pa.bool_()),  # q_value <= false-discovery rate
            pa.field("neighbor_ids", pa.list_(pa.string())),  # normal groups, nearest first
            pa.field("neighbor_distances", pa.list_(pa.float32())),  # squared
            pa.field("reason", pa.string()),  # why it was not scored; null where scored
        ]
    ),
)

MEMBERS = Schema(
    "dn2.members",
    1,
    pa.schema(
        [
            pa.field("group_id", pa.string()),  # null for an image that belongs to no group
            pa.field("label", pa.string()),
            _required("image_id", pa.string()),
            _required("uri", pa.string()),
            pa.field("contribution", pa.float32()),  # the members' contributions add up to the group's distance
            pa.field("rank", pa.int64()),  # 1 contributes most to its group's distance
            pa.field("reject_reason", pa.string()),  # null where the image could be read
        ]
    ),
)
