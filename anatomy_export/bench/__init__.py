"""Timing of what was shipped."""
