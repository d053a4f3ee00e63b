"""The arguments and options that commands have in common."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

import typer


class Engine(StrEnum):
    """What runs the network."""

    auto = "auto"
    openvino = "openvino"
    torch = "torch"


class Metric(StrEnum):
    """How two embeddings are compared."""

    l2 = "l2"
    cosine = "cosine"


class Index(StrEnum):
    """How the neighbours in a bank are searched."""

    auto = "auto"
    exact = "exact"
    ivf = "ivf"
    centroids = "centroids"


class Pooling(StrEnum):
    """How the embeddings of a group become one vector."""

    mean = "mean"
    histogram = "histogram"
    concat = "concat"


class Clean(StrEnum):
    """How a training set is cleaned."""

    none = "none"
    paper = "paper"
    auto = "auto"


Source = Annotated[
    str,
    typer.Argument(
        help="Folder or fsspec URL with images. Or a quoted glob. Or .tar, .parquet with image bytes, or a glob of "
        "them. Or a table that lists images, .csv or .parquet.",
        show_default=False,
    ),
]
Store = Annotated[str, typer.Option(help="Folder or fsspec URL where dn2 keeps its files.")]
Dataset = Annotated[str | None, typer.Option(help="Name of the dataset. Default: derived from SOURCE.")]
Pattern = Annotated[
    str | None, typer.Option(help="What the paths below SOURCE say, such as '{label}/{group_id}/*'. Default: nothing.")
]
Split = Annotated[str | None, typer.Option(help="Of a table: only rows whose column split has this value.")]
Bank = Annotated[str, typer.Option(help="Name of the bank of normal images.")]
AnyBank = Annotated[str, typer.Option(help="Name of the bank, of images or of groups.")]
GroupBank = Annotated[str, typer.Option(help="Name of the bank of normal groups.")]
Backbone = Annotated[
    str,
    typer.Option(
        help="auto, efficientnet_lite0, _lite1 or _lite2, a model of torchvision, or module:object for one of your own."
    ),
]
Crop = Annotated[
    str,
    typer.Option(
        help="What of an image is seen: its center, the full image, or tiles-RxC of which the worst counts. auto: the "
        "bank's, else center."
    ),
]
Weights = Annotated[str | None, typer.Option(help="File or URL of the backbone's weights. Default: the usual ones.")]
WeightsSha256 = Annotated[str | None, typer.Option("--weights-sha256", help="Refuse other weights than these.")]
Download = Annotated[
    bool, typer.Option("--download", help="Fetch weights that are not on this machine from torch's hub.")
]
EngineOption = Annotated[Engine, typer.Option(help="What runs the network.")]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:N, or several with commas between.")]
BatchSize = Annotated[int, typer.Option(help="Images per forward pass.")]
ShardSize = Annotated[int, typer.Option(help="Images per shard: what is lost at most when a run is killed.")]
CleanOption = Annotated[
    Clean,
    typer.Option(help="Drop training images that do not look like the others: as the paper does, or better (auto)."),
]
Contamination = Annotated[
    float | None, typer.Option(help="Cleaning: assumed share of anomalies in the training images. Default: estimated.")
]
Drop = Annotated[
    float | None, typer.Option(help="Cleaning: share to drop. Default: 0.5 for paper, by the contamination for auto.")
]
IndexOption = Annotated[
    Index,
    typer.Option(
        help="Search among all images (exact), those of the nearest cells (ivf), or centres only (centroids). "
        "auto: exact or ivf, whichever takes less time."
    ),
]
Centroids = Annotated[int | None, typer.Option(help="Index centroids: so many centres. Default: 100.")]
Nlist = Annotated[
    int | None, typer.Option(help="Index ivf: so many cells. Default: four times the root of the number of images.")
]
Nprobe = Annotated[
    int | None, typer.Option(help="Index ivf: visit so many cells. Default: as many as the recall asks for.")
]
Recall = Annotated[
    float | None, typer.Option(help="Index ivf: find this share of the true nearest neighbours. Default: 0.99.")
]
ExpectedQueries = Annotated[
    int | None, typer.Option(help="Index auto: images that the bank will score, roughly. Default: 100,000.")
]
SegmentRows = Annotated[
    int | None,
    typer.Option(help="Images of one segment, for a bank that is larger than memory. Default: one segment holds all."),
]
ImageIds = Annotated[
    list[str],
    typer.Argument(help="Images to take out, by id. Reports list the ids as neighbor_ids.", show_default=False),
]
Out = Annotated[str | None, typer.Option(help="Local folder to copy the finished report to.")]
Rate = Annotated[float | None, typer.Option("--far", help="Threshold: flag this share of normal images at most.")]
Quantile = Annotated[float | None, typer.Option(help="Threshold: this quantile of the bank's calibration scores.")]
Threshold = Annotated[float | None, typer.Option(help="Threshold: this squared distance.")]
Budget = Annotated[int | None, typer.Option(help="Threshold: flag at most so many images, the worst of the batch.")]
Discoveries = Annotated[
    float | None,
    typer.Option(
        "--fdr", help="Select images of which at most this share is normal. Default: 0.1, or that of the report."
    ),
]
GroupDiscoveries = Annotated[
    float | None, typer.Option("--fdr", help="Select groups of which at most this share is normal. Default: 0.1.")
]
Verbose = Annotated[bool, typer.Option("--verbose", "-v", help="Show the log and, on errors, where they arose.")]
