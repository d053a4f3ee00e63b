"""Do rates, intervals, cleaning, drift and doubts say what is true? One module for each, and one Parquet file."""
