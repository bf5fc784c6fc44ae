"""The join beside its peers on one real broker: ``python -m benchmarks.join``."""
