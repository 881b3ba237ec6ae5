"""The models that need no directory: fetched or made, fine-tuned once, cached."""
