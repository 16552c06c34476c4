"""Experiments on tickets, each from one configuration in `configs/find/`, resumable, ending in tables of Markdown."""
