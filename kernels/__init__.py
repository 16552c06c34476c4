"""Triton kernels, one module per operation; installs as `sparsemeta.kernels`, imports nothing from sparsemeta."""
