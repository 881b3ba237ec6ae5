"""Tests that need a program beside Python: a browser."""
