"""Does dn2 keep what it promises on data as people really have it? One module a promise, each with a Parquet file."""
