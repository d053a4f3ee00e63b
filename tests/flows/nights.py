"""A store, and folders beside it that are scored every night."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import dn2
from tests.conftest import Bricks
from tests.flows.told import write_sources


@dataclass(frozen=True)
class Nights:
    """A store with the bank `bricks`, and folders beside it that are scored every night."""

    bricks: Bricks
    folder: Path

    def put(self, source: str, *names: str) -> str:
        """Put images of the batch into a source; return the source's URI."""
        (self.folder / source).mkdir(exist_ok=True)
        for name in names:
            shutil.copy(self.bricks.batch / f"{name}.png", self.folder / source)
        return self.uri(source)

    def uri(self, source: str) -> str:
        return f"file://{self.folder / source}"

    def write(self, *sources: str | dict[str, Any], **more: Any) -> str:
        """Write the sources file; a bare name is compared with the bank `bricks`."""
        nightly = [{"source": one, "bank": "bricks"} if isinstance(one, str) else one for one in sources]
        return write_sources(self.folder / "sources.yaml", store="store", nightly=nightly, **more)

    def train(self, bank: str, **fit: Any) -> None:
        """Make another version of a bank, of the same images."""
        embedded = dn2.embed(dn2.ingest(self.bricks.normal, self.bricks.store), self.bricks.store)
        dn2.fit(embedded, self.bricks.store, bank=bank, config=dn2.FitConfig(**fit))
