"""What is timed, one module per operation, named like the operation."""
