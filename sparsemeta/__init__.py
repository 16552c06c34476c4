"""Lottery tickets for few-shot learning that pay in seconds."""
