"""Requests and messages at random against the whole controller (`make fuzz`)."""
