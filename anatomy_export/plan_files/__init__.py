"""What stays of a model, as values and files: `plan.json`, `repair.safetensors`, and which model they are for."""
