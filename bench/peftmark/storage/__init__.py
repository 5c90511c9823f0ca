"""What is kept on disk: Parquet parts, the history of gates, published rows of others."""
