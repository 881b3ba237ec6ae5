"""The directory that ships: manifest, model card, files, and what verifies and runs it elsewhere."""
