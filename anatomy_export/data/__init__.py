"""Labelled text: tables read and split, built-in sets, probe sentences."""
