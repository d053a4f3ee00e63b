"""One thin Prefect task per step of the library: log, call one function, return its record."""
