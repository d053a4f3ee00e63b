"""The columns of every Parquet file that dn2 writes, each with what it holds, and where such files lie."""

from __future__ import annotations

import pyarrow as pa

from dn2 import layout
from dn2.store.schema import Schema, optional, required

_IMAGE_ID = required("image_id", pa.string(), "32 hex digits of the sha256 of the image's URI and version")
_URI = required("uri", pa.string(), "where the image lies, an absolute URI")
_GROUPING = [
    optional("group_id", pa.string(), "the set this image belongs to, where known"),
    optional("label", pa.string(), "what is known about it; never used for scoring"),
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
            required(
                "version",
                pa.string(),
                "etag, or size and modification time; absent for a file that a table lists and that is not there",
            ),
            required("size", pa.int64(), "bytes; -1 where the source does not tell"),
            required("present", pa.bool_(), "false: a tombstone, the image vanished"),
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
            optional(
                "embedding",
                _VECTOR,
                "one number for each channel of the network, and that for each tile; null where rejected",
            ),
            optional("content_sha256", pa.string(), "of the file's bytes; null where it could not be read"),
            optional("width", pa.int32(), "pixels, as shown (EXIF orientation applied); null where rejected"),
            optional("height", pa.int32(), "pixels, as shown (EXIF orientation applied); null where rejected"),
            required("size", pa.int64(), "bytes"),
            optional("reject_reason", pa.string(), "why the image could not be read; null where embedded"),
        ]
    ),
    "A present image of one slice of a manifest part, embedded or rejected.",
    layout.embeddings.text,
)

THUMBNAILS = Schema(
    "dn2.thumbnails",
    1,
    pa.schema([_IMAGE_ID, required("thumbnail", pa.binary(), "a small JPEG of the image")]),
    "An image that was embedded.",
    layout.shard_thumbnails.text,
)

PROBES = Schema(
    "dn2.probes",
    1,
    pa.schema(
        [
            required("picture", pa.binary(), "JPEG or PNG bytes"),
            optional("embedding", _VECTOR, "what every process must make of it again"),
        ]
    ),
    "A picture that every process must embed alike. A bank version has a copy.",
    layout.probes.text,
)

REJECTS = Schema(
    "dn2.rejects",
    1,
    pa.schema([_IMAGE_ID, _URI, required("reject_reason", pa.string(), "why the image could not be read")]),
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
            required("score", pa.float32(), "how odd it is among the training images; higher is odder"),
            required("rank", pa.int64(), "1 is the oddest; copies of one image count once and share a rank"),
            required("kept", pa.bool_(), "whether it goes into the bank"),
            optional("reason", pa.string(), "why it was dropped: impurity or margin; null where kept"),
            optional("cluster", pa.string(), "id of the cluster apart from the main body that it belongs to, if any"),
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
            required("content_sha256", pa.string(), "of the file's bytes"),
            *_GROUPING,
            required("shard", pa.string(), "the embedding shard it came from; beside that lies its thumbnail"),
            optional("tile", pa.int32(), f"{_TILE}; null where images are not cut into tiles"),
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
            required("centroid", pa.list_(pa.float32()), "the mean of the cell's vectors"),
            required("rows", pa.int64(), "how many rows of the segment lie in the cell; cells follow their order"),
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
            required("rows", pa.list_(pa.int64()), "rows of the bank, nearest first; -1 where there are fewer"),
            required("distances", pa.list_(pa.float32()), "squared distances to them"),
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
            required("score", pa.float32(), _DISTANCE),
            optional("unit", pa.int64(), "its unit: what is not independent has one number; null: each is its own"),
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
            optional(
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
            optional("image_id", pa.string(), "id of the embedded image; null where it is not embedded"),
            _URI,
            required("content_sha256", pa.string(), "of the file's bytes: by it the image is known again"),
            optional("shard", pa.string(), "the embedding shard it stands in; null where it is not embedded"),
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
            required("role", pa.string(), "image: a normal one; centre: of a kind of them; axis: a principal one"),
            optional("inside", pa.bool_(), "of an image, whether its calibration score has p > 0.05; null for others"),
            optional("embedding", _VECTOR, "its vector; of an image that is cut into tiles their mean"),
        ]
    ),
    "What the whole of a batch is compared with. Made when something is scored with the version first.",
    layout.bank_reference.text,
)

_SCORE = [
    _IMAGE_ID,
    _URI,
    *_GROUPING,
    optional("score", pa.float32(), f"{_DISTANCE}; null where rejected"),
    optional("p_value", pa.float64(), "how rare a score this high is among normal images; null where rejected"),
]
_WORST_TILE = optional("tile", pa.int32(), f"{_TILE}, with this score, the largest of all; null where there are none")
_NEIGHBORS = [
    optional(
        "neighbor_ids",
        pa.list_(pa.string()),
        "image_id of the k nearest, nearest first; for a centre that of the image nearest to it; null where rejected",
    ),
    optional("neighbor_uris", pa.list_(pa.string()), "where they lie; null where rejected"),
    optional("neighbor_distances", pa.list_(pa.float32()), "their squared distances; null where rejected"),
    optional("neighbor_tiles", pa.list_(pa.int32()), "which tile of each of them; null where there are none"),
    optional("reject_reason", pa.string(), "why the image could not be read; null where scored"),
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
            optional("q_value", pa.float64(), "the p-value adjusted to the whole batch; null where rejected"),
            required("threshold", pa.float32(), "a score above it is anomalous"),
            optional("is_anomaly", pa.bool_(), "score above threshold; null where rejected"),
            optional("selected", pa.bool_(), "q-value at most the false-discovery rate; null where rejected"),
            *_NEIGHBORS,
        ]
    ),
    "An image of a batch, scored or rejected.",
    layout.report_part.text,
)

_GROUP = [
    required("group_id", pa.string(), "the group"),
    optional("label", pa.string(), "what is known about it; null where its images have none, or several"),
]

BANK_GROUPS = Schema(
    "dn2.bank_groups",
    1,
    pa.schema(
        [
            *_GROUP,
            required("source", pa.string(), "where its images came from"),
            required("members", pa.int64(), "images that could be read"),
            required("content", pa.uint64(), "sum of hashes of its images' bytes: by it the group is known again"),
            required("example_ids", pa.list_(pa.string()), "image_id of some of its images, to be shown"),
            required("example_shards", pa.list_(pa.string()), "embedding shards beside which their thumbnails lie"),
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
            required("size", pa.int64(), "units of a normal group in it: images, each with its near copies"),
            required("group_id", pa.string(), "which"),
            required("distance", pa.float32(), "mean squared distance to the k nearest of the other normal groups"),
            optional("effective", pa.float64(), "independent images that it counts as; null where every image counts"),
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
            required("members", pa.int64(), "images that could be read"),
            required("rejected", pa.int64(), "images that could not"),
            optional("effective", pa.float64(), "independent images that it counts as; null where not asked"),
            optional(
                "distance", pa.float32(), "mean squared distance to the k nearest normal groups; null where not scored"
            ),
            optional("score", pa.float32(), "the distance over that of a typical normal group of the same size"),
            optional("p_value", pa.float64(), "how rare a score this high is among normal groups of about this size"),
            optional("q_value", pa.float64(), "the p-value adjusted to the whole batch"),
            optional("threshold", pa.float32(), "for groups of this size"),
            optional("is_anomaly", pa.bool_(), "score above threshold"),
            optional("selected", pa.bool_(), "q-value at most the false-discovery rate"),
            optional("neighbor_ids", pa.list_(pa.string()), "group_id of the k nearest, nearest first"),
            optional("neighbor_distances", pa.list_(pa.float32()), "their squared distances"),
            optional("reason", pa.string(), "why it was not scored; null where scored"),
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
            optional("group_id", pa.string(), "its group; null for an image that belongs to none"),
            optional("label", pa.string(), "what is known about it; never used"),
            _IMAGE_ID,
            _URI,
            optional(
                "contribution", pa.float32(), "its part of the group's distance; null where the group has no score"
            ),
            optional("rank", pa.int64(), "1 contributes most to its group's distance"),
            optional("reject_reason", pa.string(), "why the image could not be read; null where it could"),
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
            required("report", pa.string(), "the report that was made first, relative to the store"),
            required("source", pa.string(), "where the batch came from"),
            required("bank", pa.string(), "name of the bank"),
            required("version", pa.string(), "the bank's version"),
            required("of", pa.string(), "what was scored and is counted: images or groups"),
            required("when", pa.timestamp("us", "UTC"), "when the report was made"),
            required("images", pa.int64(), "images in the batch"),
            required("rejected", pa.int64(), "of them, images that could not be read"),
            required("scored", pa.int64(), "images or groups with a score"),
            required("anomalous", pa.int64(), "images or groups above the threshold"),
            required("selected", pa.int64(), "images or groups whose q-value is at most the false-discovery rate"),
            required("anomalous_rate", pa.float64(), "anomalous over scored; 0 if none was scored"),
            optional("verdict", pa.string(), "drift: steady, anomalies, kind or moved; null where it cannot be told"),
            optional("units", pa.int64(), "images that this rests on, of those that depend on each other one"),
            optional("outside", pa.float64(), "share of them with p <= 0.05"),
            optional("kind", pa.float64(), "share of them that is a kind which the bank does not know"),
            optional("ks", pa.float64(), "Kolmogorov and Smirnov's distance of the scores inside to the calibration's"),
            optional("shift", pa.float64(), "how far the mean of the images inside has moved, in standard deviations"),
            optional("psi", pa.float64(), "population stability index of the kinds of images inside"),
            optional("levels", pa.list_(pa.int64()), "how many of them have a p-value in each twentieth"),
            optional("recent_batches", pa.int64(), "batches of this version and source that are looked at together"),
            optional(
                "recent_ks", pa.float64(), "distance (Kolmogorov-Smirnov) of their p-values inside to uniform ones"
            ),
            optional("stale", pa.bool_(), "whether that is more than chance, and large enough to matter"),
        ]
    ),
    "A batch that was scored. Written once, and never changed.",
    layout.history.text,
)

SCHEMAS = tuple(kind for kind in list(globals().values()) if isinstance(kind, Schema))
