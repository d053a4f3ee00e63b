"""Where each thing lies in a store."""

from __future__ import annotations


def manifests(dataset: str) -> str:
    """Return the folder of a dataset's manifest parts."""
    return f"manifests/{dataset}"


def manifest(dataset: str, part: str) -> str:
    """Return the path of one manifest part."""
    return f"manifests/{dataset}/{part}.parquet"


def embeddings(embedder: str, shard: str) -> str:
    """Return the path of one embedding shard."""
    return f"embeddings/{embedder}/{shard}.parquet"


def thumbnails(embedding_shard: str) -> str:
    """Return the path of the thumbnails beside an embedding shard."""
    return f"{embedding_shard.removesuffix('.parquet')}.thumbnails.parquet"


def probes(embedder: str) -> str:
    """Return the path of an embedder's probe pictures and their embeddings."""
    return f"embeddings/{embedder}/probes.parquet"


def rejects(dataset: str, fingerprint: str) -> str:
    """Return the path of the list of images that stopped a training."""
    return f"rejects/{dataset}/{fingerprint}.parquet"


def cleaning(fingerprint: str) -> str:
    """Return the folder of a cleaning."""
    return f"cleaning/{fingerprint}"


def cleaning_rows(fingerprint: str) -> str:
    """Return the path of a cleaning's table of kept and dropped images."""
    return f"{cleaning(fingerprint)}/rows.parquet"


def bank(name: str) -> str:
    """Return a bank's folder."""
    return f"banks/{name}"


def bank_segment(name: str, fingerprint: str) -> str:
    """Return the path of a bank segment, to which .npy (vectors) and .parquet (their rows) are appended."""
    return f"banks/{name}/segments/{fingerprint}"


def bank_cells(segment: str) -> str:
    """Return the path of the cells of a bank of groups whose pooling is a histogram, beside its segment."""
    return f"{segment}.cells.npy"


def segment_cells(segment: str) -> str:
    """Return the path of the k-means cells in which the rows of a bank segment lie."""
    return f"{segment}.cells.parquet"


def bank_calibration(name: str, version: str) -> str:
    """Return the path of a bank version's calibration scores."""
    return f"banks/{name}/versions/{version}.calibration.parquet"


def bank_probes(name: str, version: str) -> str:
    """Return the path of the probe pictures that a process must reproduce before it scores."""
    return f"banks/{name}/versions/{version}.probes.parquet"


def bank_version(name: str, version: str) -> str:
    """Return the path of the file that makes a bank version whole."""
    return f"banks/{name}/versions/{version}.json"


def bank_versions(name: str) -> str:
    """Return the folder of a bank's versions."""
    return f"banks/{name}/versions"


def bank_pointer(name: str) -> str:
    """Return the path of the file that names a bank's current version."""
    return f"banks/{name}/current.json"


def scores(bank_name: str, fingerprint: str) -> str:
    """Return the folder of a batch's scores, of which reports are made."""
    return f"scores/{bank_name}/{fingerprint}"


def found(scores_folder: str, segments: str, number: int) -> str:
    """Return the path of what one shard of a batch has for neighbours in some segments of a bank."""
    return f"{scores_folder}/found-{segments}/part-{number:05d}.parquet"


def report(bank_name: str, fingerprint: str) -> str:
    """Return a report's folder."""
    return f"reports/{bank_name}/{fingerprint}"


def lock(name: str) -> str:
    """Return the path of a lock."""
    return f".locks/{name}"


def watermark(bank_name: str, dataset: str, part: str, version: str) -> str:
    """Return the path of the mark that says: this version of the bank has scored this manifest part."""
    return f"{watermarks(bank_name, dataset)}/{part}-{version}.json"


def watermarks(bank_name: str, dataset: str) -> str:
    """Return the folder of the marks of a dataset and a bank."""
    return f"watermarks/{bank_name}/{dataset}"


def drop(identity: str) -> str:
    """Return the path of the file that says: this drop was scored."""
    return f"drops/{identity}.json"


def watch(fingerprint: str) -> str:
    """Return the path of what is known about the drops of a watched prefix."""
    return f"watches/{fingerprint}.json"
