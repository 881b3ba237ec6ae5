"""Fine-tune a classifier with the transformers Trainer: the paper's recipe (2 epochs, learning rate 5e-5, batch 8)."""

import contextlib
import sys
import tempfile
from dataclasses import asdict, dataclass

import torch
import transformers

from anatomy_export.data.loading import Dataset, Examples
from anatomy_export.models.checkpoint import Checkpoint


@dataclass(frozen=True)
class Recipe:
    """Hyperparameters of a fine-tuning run; the defaults are the paper's (its section on fine-tuning)."""

    epochs: float = 2.0
    learning_rate: float = 5e-5
    batch_size: int = 8
    warmup_steps: int = 0
    weight_decay: float = 0.0
    max_length: int = 128
    seed: int = 0

    def as_dict(self) -> dict:
        return asdict(self)


class _EncodedExamples(torch.utils.data.Dataset):
    def __init__(self, examples: Examples, tokenizer, max_length: int):
        self.encodings = tokenizer(list(examples.texts), truncation=True, max_length=max_length)["input_ids"]
        self.labels = examples.labels

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> dict:
        ids = self.encodings[index]
        return {"input_ids": ids, "attention_mask": [1] * len(ids), "labels": self.labels[index]}


def finetune_(checkpoint: Checkpoint, data: Dataset, recipe: Recipe, *, show_progress: bool = True) -> None:
    """Train every parameter that requires a gradient, in place, on the train split; the progress bar is on stderr."""
    transformers.set_seed(recipe.seed)
    with tempfile.TemporaryDirectory() as folder:
        arguments = transformers.TrainingArguments(
            output_dir=folder,
            num_train_epochs=recipe.epochs,
            learning_rate=recipe.learning_rate,
            per_device_train_batch_size=recipe.batch_size,
            warmup_steps=recipe.warmup_steps,
            weight_decay=recipe.weight_decay,
            seed=recipe.seed,
            save_strategy="no",
            logging_strategy="no",
            report_to=[],
            disable_tqdm=not show_progress,
            dataloader_pin_memory=False,
        )
        trainer = transformers.Trainer(
            model=checkpoint.model,
            args=arguments,
            train_dataset=_EncodedExamples(data.train, checkpoint.tokenizer, recipe.max_length),
            data_collator=transformers.DataCollatorWithPadding(checkpoint.tokenizer),
        )
        trainer.remove_callback(transformers.PrinterCallback)
        with contextlib.redirect_stdout(sys.stderr):
            trainer.train()
    checkpoint.model.to("cpu").eval()
