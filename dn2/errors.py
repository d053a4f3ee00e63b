"""Every error that dn2 raises on purpose, in one tree.

    Dn2Error
    ├── ConfigError         (ValueError)         a setting or argument that cannot work
    ├── NotFoundError       (FileNotFoundError)  a source, bank or version that was named and is not there
    ├── SourceError         (OSError)            a source that cannot be listed or read
    │   └── EmptySourceError                     a source without a single image
    ├── StoreError          (OSError)            the store cannot be read or written
    ├── SchemaError         (ValueError)         a file in the store is not what its name says
    ├── WeightsError        (FileNotFoundError)  a backbone's weights are not on this machine, or do not fit
    ├── EmbedderError       (ValueError)         two things embedded differently were about to be compared
    ├── BankError           (ValueError)         too few normal images, or a bank over its memory budget
    └── RejectedError       (ValueError)         too many images could not be read

A message says what it is about, what was found, what was expected, and what to do.
"""

from __future__ import annotations


class Dn2Error(Exception):
    """Base of every error that dn2 raises on purpose."""


class ConfigError(Dn2Error, ValueError):
    """A setting or argument that cannot work."""


class NotFoundError(Dn2Error, FileNotFoundError):
    """A source, bank or version that was named and is not there."""


class SourceError(Dn2Error, OSError):
    """A source that cannot be listed or read."""


class EmptySourceError(SourceError):
    """A source without a single image."""


class StoreError(Dn2Error, OSError):
    """The store cannot be read or written."""


class SchemaError(Dn2Error, ValueError):
    """A file in the store is not what its name says."""


class WeightsError(Dn2Error, FileNotFoundError):
    """A backbone's weights are not on this machine, or do not fit it."""


class EmbedderError(Dn2Error, ValueError):
    """Two things that were embedded differently were about to be compared."""


class BankError(Dn2Error, ValueError):
    """Too few normal images for a bank, or a bank over its memory budget."""


class RejectedError(Dn2Error, ValueError):
    """Too many images could not be read."""
