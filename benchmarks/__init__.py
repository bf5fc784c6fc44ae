"""How fast Bandstand is, beside named peers in one run: ``python -m benchmarks``."""
