"""Raw events to Parquet on S3-compatible storage, under deterministic names."""
