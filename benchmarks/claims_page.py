"""docs/PAPER.md from paper-claims.json: the paper's claims, one row each, with the numbers measured here."""

from collections.abc import Callable

from cells import interval, load, percent

from anatomy_export.bench.tables import markdown_table

MODELS = ("bert", "gpt2")
TEXT = """# The paper's claims, checked

Chen & Liu, "Anatomy and Structured Pruning of Large Language Models", studied bert-base-cased and GPT-2, 12 layers
each, fine-tuned on IMDB. Here are the two models that need no hub: `bert`, a 6-layer MiniLM fine-tuned on movie-review
sentences, and `gpt2`, a 6-layer GPT-2 trained on them over frozen token embeddings. A claim that does not hold of these
is not refuted for theirs; where they name layers, the same share of the depth is meant. The ten built-in probes follow
the paper's sub-tasks. Written by `benchmarks/render.py` from `paper-claims.json`, which `benchmarks/paper_claims.py`
makes of scores and of `study-bert.json` and `study-gpt2.json` (`anatomy study --model bert`, `--model gpt2`); that
script has the rule behind each verdict.

"""
THEIRS = """
## On the paper's own models

With a network (the fine-tuning wants a GPU):

```sh
anatomy finetune --model bert-base-cased --data imdb --output bert-imdb
anatomy score --model ./bert-imdb --output anatomy-bert-imdb
anatomy study --model ./bert-imdb --data imdb --eval-examples 1000 --max-length 100 --latency --output study-bert-imdb
anatomy finetune --model openai-community/gpt2 --data imdb --output gpt2-imdb
anatomy study --model ./gpt2-imdb --data imdb --eval-examples 1000 --max-length 100 --latency --output study-gpt2-imdb
```

Not run by this project: it had no access to the hub.

## Words

- *Strong*: cosine similarity with the target token above 0.35 for any probe. *Top*: among the 5 % most similar.
- *Dangling*: strong for a probe, and no neuron of the next layer is strong for it. *Offset*: likewise, and a neuron of
  the next layer has a similarity below −0.35. Both follow the paper's presumption that strong neurons of neighbouring
  layers are fully connected, so they say something of layers rather than of single neurons.
- *Random*: as many neurons, spread evenly over the layers, strong ones kept, five seeds.
"""


def _surge(n: dict) -> str:
    return (
        f"similarity rises by {n['after']:.2f} after layer {n['late']} of {len(n['similarity']) - 1}, by "
        f"{n['before']:.2f} before; the last layer alone {n['last']:.2f}"
    )


def _negative(n: dict) -> str:
    difference = f"{n['difference']:+.3f} ± {n['half_interval']:.3f}"
    return (
        f"rise over the first {n['early']} layers: negative {n['negative']:+.3f}, positive {n['positive']:+.3f}, "
        f"difference {difference}"
    )


def _fewer(n: dict) -> str:
    return "; ".join(
        f"{name}: {', '.join(map(str, strong['counts']))} (correlation with depth {strong['correlation']:+.2f})"
        for name, strong in (("strong", n["paper"]), ("top", n["top"]))
    )


def _funnels(n: dict) -> str:
    def at(layers: list[int]) -> str:
        return f"at {', '.join(map(str, layers))}" if layers else "none"

    return f"layers with fewer than both neighbours: strong {at(n['paper'])}; top {at(n['top'])}"


def _strong_last(n: dict) -> str:
    return f"strong by layer {', '.join(map(str, n['counts']))}: {n['last_two']} of {sum(n['counts'])} in the last two"


def _same_sets(n: dict) -> str:
    parts = [
        f"{name} Jaccard {sets['jaccard']:.2f} ({sets['before']} before, {sets['after']} after)"
        for name, sets in (("strong", n["paper"]), ("top", n["top"]))
        if sets["jaccard"] is not None
    ]
    return f"{'; '.join(parts)}; similarities correlate {n['correlation']:.2f}"


def _inputs(n: dict) -> str:
    if n["mean"] is None:
        return "no probe has a strong neuron"
    return f"mean Jaccard of two probes' sets {n['mean']:.2f}; by chance {n['chance']:.3f}"


def _count(n: dict) -> str:
    return f"{n['count']:,} of {n['of']:,} strong neurons"


def _beats(n: dict) -> str:
    gains = n["gains"].values()
    return (
        f"better in {len(n['better'])} of {n['presets']} presets, worse in {len(n['worse'])} (95 % intervals); "
        f"gain from {min(gains):+.2f} to {max(gains):+.2f} points"
    )


def _third(n: dict) -> str:
    drop = interval(n["drop"], n["half_interval"])
    return f"{n['preset']}, {percent(n['removed_share'], 1)} removed: drop {drop} points"


def _down(n: dict) -> str:
    steps = ", ".join(percent(step["accuracy"], 2) for step in n["steps"])
    layers = ", ".join(str(step["layers"]) for step in n["steps"])
    return (
        f"alpha {n['alpha']}, the last {layers} layers in focus: {steps}; last less first "
        f"{interval(n['gain'], n['half_interval'])} points"
    )


def _faster(n: dict) -> str:
    return (
        f"dense time ÷ masked time {n['least']:.2f} to {n['most']:.2f}; faster in {n['faster']} of "
        f"{n['setups']} setups, slower in {n['slower']} (95 % intervals; `{n['source']}`)"
    )


CLAIMS: dict[str, tuple[str, Callable[[dict], str]]] = {
    "bert-surges-late": ("BERT's layer similarity surges late, after layer 8 of 12", _surge),
    "bert-negative-early": ("BERT is more sensitive to negative input early on", _negative),
    "gpt2-starts-negative": (
        "GPT-2's layer similarity starts negative",
        lambda n: f"similarity of the embedding {n['first']:+.2f}",
    ),
    "gpt2-dips": ("and dips before the end", lambda n: f"least rise of a late layer {n['least_rise']:+.3f}"),
    "gpt2-decides-last": (
        "GPT-2 decides in the last layer",
        lambda n: f"rise of the last layer {n['last']:+.3f}; the largest, {n['largest']:+.3f}, is layer {n['at']}'s",
    ),
    "bert-fewer-with-depth": ("Strong neurons grow fewer with depth in BERT", _fewer),
    "bert-funnels": ("with funnels between layers 2–4 and 4–6", _funnels),
    "gpt2-strong-last": ("Strong neurons appear only in GPT-2's last two layers", _strong_last),
    "same-for-every-input": ("Nearly the same strong set for every input", _inputs),
    "same-after-fine-tuning": ("The same strong set before and after fine-tuning", _same_sets),
    "dangling": ("Some strong neurons dangle", _count),
    "offset": ("Some strong neurons are offset in the next layer", _count),
    "under-five-percent": ("Under 5 % are strong", lambda n: f"{percent(n['share'], 2)} of all neurons"),
    "structured-beats-random": ("Structured removal beats random at equal count", _beats),
    "a-third-costs-a-tenth": ("30 % removed costs 0.1 point", _third),
    "gpt2-rises-when-moving-down": (
        "GPT-2's accuracy rises when pruning moves from the last layer down",
        _down,
    ),
    "masking-is-faster": ("Masking speeds inference up", _faster),
}


def paper_markdown() -> str:
    body = load("paper-claims")
    rows = [
        (text, *(_cell(body["claims"][claim].get(model), measured) for model in MODELS))
        for claim, (text, measured) in CLAIMS.items()
    ]
    return TEXT + markdown_table(("claim", *MODELS), rows) + THEIRS


def _cell(claim: dict | None, measured: Callable[[dict], str]) -> str:
    if claim is None:
        return "–"
    return f"**{claim['verdict']}**: {measured(claim['numbers']) if 'numbers' in claim else claim['why']}"
