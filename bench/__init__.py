"""Benchmarks. This folder installs as `sparsemeta.bench`."""
