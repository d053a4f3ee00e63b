"""The one door to storage: locations, atomic files, schemas, tables."""
