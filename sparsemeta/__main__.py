"""`python -m sparsemeta`, which `torchrun -m sparsemeta` needs."""

from sparsemeta.cli import main

main()
