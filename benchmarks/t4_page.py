"""docs/T4.md: how to measure on a T4, and from t4.json what it could do at best."""

from cells import load, percent

from anatomy_export.bench.tables import markdown_table, milliseconds

T4_TEXT = """# On a T4

Measured by this project: not measured. Nobody has run it on a T4 yet.

To do it, open `benchmarks/t4.ipynb` on a machine with a T4 (a free Colab runtime has one), or:

```sh
pip install '.[gpu,report]'                  # onnxruntime-gpu 1.31 wants CUDA 13 and cuDNN 9
pip install 'onnxruntime-gpu[cuda,cudnn]'    # where the system does not have them
anatomy doctor --require cuda                # exit code 3, and why, if CUDA does not really start
anatomy-bench paper --model bert-base --provider cuda --removed 0.5 --variant dense,slice
anatomy-bench --model bert-base --provider cuda --backend ort --io-binding off,on --cuda-graph off,on
```

Every engine and variant has a process of its own, with its own CUDA context and copy of the weights: on a card of 16 GB
take one share of removed neurons at a time, as above, not the whole ladder at once.

## What to expect at best: a prediction, not a measurement

`benchmarks/t4.py`: every FLOP at the card's peak (8.1 TFLOP/s fp32, 65 TFLOP/s fp16), the weights read once a batch at
320 GB/s, whichever takes longer. Real engines stay above it. Published for a T4, BERT-base, batch 1, 128 tokens, fp16:
ONNX Runtime 2.19 ms (onnxruntime PR 12670), TorchScript 10.5 ms (NVIDIA/FasterTransformer, docs/bert_guide.md). The
paper took 10.29 s for its job, dense, with TensorFlow in fp32 once warm, and as long with 65 % of the neurons masked.

"""


def t4_markdown() -> str:
    rows = [
        (bound["job"], bound["precision"], percent(bound["removed"]), milliseconds(bound["at_least_s"]))
        for bound in load("t4")
    ]
    return T4_TEXT + markdown_table(("bert-base", "precision", "neurons removed", "at least, ms"), rows)
