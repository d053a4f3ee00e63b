"""The one door to storage: locations, atomic files, schemas, tables."""

from dn2 import layout as layout
