"""What a checkpoint is: understood, or refused by what it is and before its head is read as a classifier's."""

import json
from pathlib import Path

import pytest
import torch
import transformers
from conftest import WORDS, refused, run, saved_dense, tiny_checkpoint, tiny_config, tiny_tokenizer
from safetensors.torch import load_file, save_file

import anatomy_export
from anatomy_export.core.errors import AnatomyError
from anatomy_export.models.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from anatomy_export.models.fingerprint import model_fingerprint
from anatomy_export.models.prune import slice_neurons
from anatomy_export.models.supported_families import model_blocks
from anatomy_export.plan_files.plan import identity_plan

OTHER_TASKS = {
    "BertForTokenClassification": "bert",
    "BertForQuestionAnswering": "bert",
    "BertForMultipleChoice": "bert",
    "RobertaForMultipleChoice": "roberta",
    "RobertaForTokenClassification": "roberta",
    "ElectraForTokenClassification": "electra",
    "DistilBertForQuestionAnswering": "distilbert",
    "DistilBertForTokenClassification": "distilbert",
    "GPT2ForTokenClassification": "gpt2",
    "GPT2ForQuestionAnswering": "gpt2",
    "GPT2DoubleHeadsModel": "gpt2",
}
BODIES = {
    "BertModel": "bert",
    "BertForMaskedLM": "bert",
    "BertForPreTraining": "bert",
    "RobertaForMaskedLM": "roberta",
    "ElectraForPreTraining": "electra",
    "DistilBertForMaskedLM": "distilbert",
    "GPT2LMHeadModel": "gpt2",
}


def saved(class_name: str, family: str, directory: Path) -> Path:
    """A tiny model of a transformers class, with a tokenizer."""
    getattr(transformers, class_name)(tiny_config(family)).save_pretrained(directory)
    tiny_tokenizer(family).save_pretrained(directory)
    return directory


def edit_config(directory: Path, **fields) -> None:
    """Change fields of config.json; None takes one out."""
    config = json.loads((directory / "config.json").read_text()) | fields
    (directory / "config.json").write_text(json.dumps({name: one for name, one in config.items() if one is not None}))


def rename_tensors(directory: Path, change) -> None:
    """`change(name, tensor)` gives the name and tensor that are stored instead, or None to leave it out."""
    tensors = (change(*one) for one in load_file(directory / "model.safetensors").items())
    made = {name: tensor for name, tensor in filter(None, tensors)}
    save_file(made, directory / "model.safetensors", metadata={"format": "pt"})


def load_refused(directory: Path, *parts: str) -> None:
    """Refused in one line, whether or not the head may be missing."""
    for allowed in (False, True):
        with pytest.raises(AnatomyError) as caught:
            load_checkpoint(str(directory), allow_random_head=allowed)
        message = str(caught.value)
        assert "\n" not in message and "; next step: " in message
        for part in parts:
            assert part in message


@pytest.mark.parametrize("class_name", OTHER_TASKS)
def test_another_task_is_refused_by_name(class_name, tmp_path: Path):
    load_refused(saved(class_name, OTHER_TASKS[class_name], tmp_path), f"this is {class_name}, and supported is")


def test_a_token_classifier_with_a_pooler_is_none_of_sequences(bert_directory: Path):
    """Its tensors are those of a BertForSequenceClassification to the letter."""
    edit_config(bert_directory, architectures=["BertForTokenClassification"])
    load_refused(bert_directory, "this is BertForTokenClassification, and supported is BertForSequenceClassification")


@pytest.mark.parametrize("class_name", sorted(set(OTHER_TASKS) - {"BertForMultipleChoice", "GPT2DoubleHeadsModel"}))
def test_another_head_is_seen_by_its_tensors(class_name, tmp_path: Path):
    directory = saved(class_name, OTHER_TASKS[class_name], tmp_path)
    edit_config(directory, architectures=None)
    load_refused(directory, "is of another head than a", "most likely it labels tokens or answers questions")


def test_a_head_of_another_shape_is_told_with_both(tmp_path: Path):
    directory = saved("BertForMultipleChoice", "bert", tmp_path)
    edit_config(directory, architectures=None)
    load_refused(directory, "2 tensors have another shape than its config says, first classifier.bias")


@pytest.mark.parametrize("named", [True, False], ids=["named", "unnamed"])
@pytest.mark.parametrize("class_name", BODIES)
def test_a_body_gets_a_fresh_head_where_that_is_asked_for(class_name, named, tmp_path: Path):
    directory = saved(class_name, BODIES[class_name], tmp_path)
    if not named:
        edit_config(directory, architectures=None)
    with pytest.raises(AnatomyError, match=r"no classification head in the checkpoint .*anatomy finetune"):
        load_checkpoint(str(directory))
    loaded = load_checkpoint(str(directory), allow_random_head=True)
    assert loaded.random_head and loaded.model.config.num_labels == 2


def test_a_fresh_head_is_no_regression(tmp_path: Path):
    directory = saved("BertModel", "bert", tmp_path)
    edit_config(directory, id2label={"0": "LABEL_0"}, label2id={"LABEL_0": 0})
    assert load_checkpoint(str(directory), allow_random_head=True).model.config.num_labels == 2


@pytest.mark.parametrize("architectures", [["BertModel"], None])
def test_sentence_transformers_are_embeddings_unless_a_head_is_asked_for(architectures, tmp_path: Path):
    directory = saved("BertModel", "bert", tmp_path)
    edit_config(directory, architectures=architectures)
    (directory / "modules.json").write_text('[{"idx": 0, "name": "0", "path": "", "type": "Transformer"}]')
    with pytest.raises(AnatomyError, match=r"this is a sentence-transformers embedding model \(modules.json\)"):
        load_checkpoint(str(directory))
    assert load_checkpoint(str(directory), allow_random_head=True).random_head


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"problem_type": "multi_label_classification"}, "this is a multi-label classifier"),
        ({"problem_type": "regression"}, "this is a regression model"),
        ({"architectures": ["BertWithMeanPooling"]}, "this is BertWithMeanPooling, and supported is"),
        ({"architectures": ["RobertaForSequenceClassification"]}, "this is RobertaForSequenceClassification"),
        ({"auto_map": {"AutoModel": "modeling.Bert"}}, "asks for Python code of its own (auto_map"),
        ({"quantization_config": {"quant_method": "gptq"}}, "asks for quantised weights (quantization_config"),
        ({"position_embedding_type": "relative_key"}, "not absolute (position_embedding_type: relative_key)"),
        ({"pruned_heads": {"0": [1]}}, "attention without some of its heads (pruned_heads"),
        ({"is_decoder": True}, "asks for causal attention (is_decoder: True)"),
        ({"add_cross_attention": True}, "asks for cross-attention (add_cross_attention: True)"),
        ({"architectures": {"a": "b"}}, "architectures in its config is {'a': 'b'}, expected a list of one class name"),
        ({"id2label": {"1": "a", "2": "b"}}, "id2label in its config numbers the classes 1, 2, expected 0–1"),
    ],
    ids=lambda one: next(iter(one)) if isinstance(one, dict) else "",
)
def test_what_a_config_says_is_not_ignored(fields, message, bert_directory: Path):
    edit_config(bert_directory, **fields)
    load_refused(bert_directory, message)


def test_plain_values_of_the_same_fields_load(bert_directory: Path):
    plain = {"position_embedding_type": "absolute", "pruned_heads": {}, "is_decoder": False, "problem_type": None}
    edit_config(bert_directory, **plain, add_cross_attention=False, architectures=["TFBertForSequenceClassification"])
    assert not load_checkpoint(str(bert_directory)).random_head


@pytest.mark.parametrize("fields", [{"return_dict": False}, {"torchscript": True}, {"output_hidden_states": True}])
def test_what_a_model_returns_besides_its_logits_is_no_matter(fields, bert_directory: Path):
    edit_config(bert_directory, **fields)
    output = load_checkpoint(str(bert_directory)).model(input_ids=torch.tensor([[2, 5, 3]]))
    expected = tiny_checkpoint("bert").model(input_ids=torch.tensor([[2, 5, 3]]))
    torch.testing.assert_close(output.logits, expected.logits)
    assert output.hidden_states is None


@pytest.mark.parametrize("architectures", [["BertForSequenceClassification"], None])
def test_one_label_is_a_regression(architectures, tmp_path: Path):
    config = tiny_config("bert")
    config.num_labels = 1
    transformers.BertForSequenceClassification(config).save_pretrained(tmp_path)
    tiny_tokenizer("bert").save_pretrained(tmp_path)
    edit_config(tmp_path, architectures=architectures)
    load_refused(tmp_path, "this is a regression model, one score and no classes (num_labels is 1)")


@pytest.mark.parametrize("unlabelled", [True, False])
def test_regression_is_refused_with_and_without_labels(unlabelled, bert_directory: Path, data_file: Path, tmp_path):
    edit_config(bert_directory, problem_type="regression", id2label={"0": "LABEL_0"}, label2id={"LABEL_0": 0})
    data = ["--data", data_file, *(["--unlabelled"] if unlabelled else [])]
    result = run("export", "--model", bert_directory, *data, "--output", tmp_path / "o")
    refused(result, tmp_path / "o", 1, "this is a regression model")


WRAPPERS = {
    "torch.compile": lambda name, tensor: (f"_orig_mod.{name}", tensor),
    "DataParallel": lambda name, tensor: (f"module.{name}", tensor),
    "torch.nn.utils.prune": lambda name, tensor: (f"{name}_orig" if "query.weight" in name else name, tensor),
    "torch.nn.utils.parametrize": lambda name, tensor: (
        name.replace("query.weight", "query.parametrizations.weight.original"),
        tensor,
    ),
    "LoRA, not merged": lambda name, tensor: (name.replace("query.", "query.base_layer."), tensor),
}


@pytest.mark.parametrize("sliced", [False, True], ids=["dense", "sliced"])
@pytest.mark.parametrize("wrapper", WRAPPERS)
def test_wrapped_names_are_said_to_be(wrapper, sliced, tmp_path: Path):
    checkpoint = tiny_checkpoint("bert")
    save_checkpoint(checkpoint, tmp_path) if sliced else saved_dense(checkpoint, tmp_path)
    rename_tensors(tmp_path, WRAPPERS[wrapper])
    load_refused(tmp_path, f"is named as {wrapper}")


def test_any_other_prefix_is_named(bert_directory: Path):
    rename_tensors(bert_directory, lambda name, tensor: (f"model.net.{name}", tensor))
    load_refused(bert_directory, "every tensor has the prefix 'model.net.'")


@pytest.mark.parametrize("pickled", [False, True], ids=["safetensors", "bin"])
def test_weights_stored_as_integers_are_quantised(pickled, bert_directory: Path):
    def quantised(name, tensor):
        return name, (tensor * 100).to(torch.int8) if name.endswith("query.weight") else tensor

    rename_tensors(bert_directory, quantised)
    if pickled:
        torch.save(load_file(bert_directory / "model.safetensors"), bert_directory / "pytorch_model.bin")
        (bert_directory / "model.safetensors").unlink()
    kind = "torch.int8" if pickled else "I8"
    load_refused(bert_directory, f"query.weight is stored as {kind}, expected float weights")


@pytest.mark.parametrize("beside", ["adapter alone", "whole model"])
def test_an_adapter_is_no_model(beside, bert_directory: Path):
    (bert_directory / "adapter_config.json").write_text('{"peft_type": "LORA", "base_model_name_or_path": "some/base"}')
    if beside == "adapter alone":
        (bert_directory / "config.json").unlink()
        (bert_directory / "model.safetensors").rename(bert_directory / "adapter_model.safetensors")
    load_refused(bert_directory, "this is a PEFT adapter (adapter_config.json)", "merge_and_unload()")


def test_a_directory_of_onnx_alone(bert_directory: Path):
    (bert_directory / "model.safetensors").rename(bert_directory / "model.onnx")
    load_refused(bert_directory, "holds ONNX and no model.safetensors", "anatomy slice-onnx")


def legacy(name: str) -> str:
    return name.replace("LayerNorm.weight", "LayerNorm.gamma").replace("LayerNorm.bias", "LayerNorm.beta")


@pytest.mark.parametrize("sliced", [False, True], ids=["dense", "sliced"])
def test_old_names_of_layer_norms_load(sliced, tmp_path: Path):
    checkpoint = tiny_checkpoint("bert")
    save_checkpoint(checkpoint, tmp_path) if sliced else saved_dense(checkpoint, tmp_path)
    rename_tensors(tmp_path, lambda name, tensor: (legacy(name), tensor))
    assert any("gamma" in name for name in load_file(tmp_path / "model.safetensors"))
    loaded = load_checkpoint(str(tmp_path)).model.state_dict()
    for name, tensor in checkpoint.model.state_dict().items():
        assert torch.equal(tensor, loaded[name]), name


@pytest.mark.parametrize("sliced", [False, True], ids=["dense", "sliced"])
@pytest.mark.parametrize("kind", [torch.float16, torch.bfloat16])
def test_half_precision_loads_as_float32(kind, sliced, tmp_path: Path):
    checkpoint = tiny_checkpoint("bert")
    save_checkpoint(checkpoint, tmp_path) if sliced else saved_dense(checkpoint, tmp_path)
    rename_tensors(tmp_path, lambda name, tensor: (name, tensor.to(kind)))
    edit_config(tmp_path, dtype=str(kind).removeprefix("torch."))
    loaded = load_checkpoint(str(tmp_path)).model
    assert {parameter.dtype for parameter in loaded.parameters()} == {torch.float32}
    for name, tensor in checkpoint.model.state_dict().items():
        assert torch.equal(tensor.to(kind).float(), loaded.state_dict()[name]), name


def test_a_pooler_that_a_roberta_classifier_does_not_read(tmp_path: Path):
    """Old ones have it in their files, and transformers loads them without it."""
    checkpoint = tiny_checkpoint("roberta")
    saved_dense(checkpoint, tmp_path)
    tensors = load_file(tmp_path / "model.safetensors")
    pooler = {"roberta.pooler.dense.weight": torch.ones(16, 16), "roberta.pooler.dense.bias": torch.ones(16)}
    save_file(tensors | pooler, tmp_path / "model.safetensors", metadata={"format": "pt"})
    loaded = load_checkpoint(str(tmp_path))
    assert not loaded.random_head
    assert torch.equal(loaded.model.classifier.out_proj.weight, checkpoint.model.classifier.out_proj.weight)


def test_weights_of_another_kind_beside_the_models_own(bert_directory: Path):
    save_file({"weight": torch.ones(2, dtype=torch.int8)}, bert_directory / "model_quantized.safetensors")
    assert not load_checkpoint(str(bert_directory)).random_head


def test_shards_load(tmp_path: Path):
    checkpoint = tiny_checkpoint("bert")
    saved_dense(checkpoint, tmp_path)
    (tmp_path / "model.safetensors").unlink()
    checkpoint.model.save_pretrained(tmp_path, max_shard_size="10KB")
    assert len(list(tmp_path.glob("*.safetensors"))) > 1
    loaded = load_checkpoint(str(tmp_path)).model
    assert torch.equal(loaded.classifier.weight, checkpoint.model.classifier.weight)


def without_tokenizer_json(directory: Path, **settings) -> None:
    """The tokenizer as vocab.txt alone, and the model with room for it."""
    for file in directory.glob("*token*"):
        file.unlink()
    (directory / "vocab.txt").write_text("\n".join(["[PAD]", "[UNK]", "[CLS]", "[SEP]", *WORDS[:19], "[MASK]"]))
    (directory / "tokenizer_config.json").write_text(json.dumps(settings))


def test_a_vocabulary_becomes_a_fast_tokenizer(bert_directory: Path, tmp_path: Path):
    without_tokenizer_json(bert_directory)
    loaded = load_checkpoint(str(bert_directory))
    assert loaded.tokenizer("the film")["input_ids"] == [2, 4, 5, 3]
    save_checkpoint(loaded, tmp_path / "saved")
    assert (tmp_path / "saved" / "tokenizer.json").is_file()


def test_a_tokenizer_that_is_python_alone(bert_directory: Path):
    """No tokenizer.json could be made of it, so a bundle would have none."""
    without_tokenizer_json(
        bert_directory,
        tokenizer_class="BertJapaneseTokenizer",
        word_tokenizer_type="basic",
        subword_tokenizer_type="character",
    )
    load_refused(bert_directory, "its tokenizer BertJapaneseTokenizer is Python code")


def test_a_tokenizer_that_lacks_a_file(tmp_path: Path):
    directory = saved("RobertaForSequenceClassification", "roberta", tmp_path)
    for file in directory.glob("*token*"):
        file.unlink()
    (directory / "vocab.json").write_text(json.dumps({word: index for index, word in enumerate(WORDS)}))
    load_refused(directory, "its tokenizer cannot be loaded")


def test_a_model_in_memory_is_recognised_too():
    model = transformers.BertForTokenClassification(tiny_config("bert"))
    with pytest.raises(AnatomyError, match="model is BertForTokenClassification, and supported is"):
        anatomy_export.score(model, tiny_tokenizer("bert"))
    classifier = tiny_checkpoint("bert").model
    classifier.config.problem_type = "multi_label_classification"
    with pytest.raises(AnatomyError, match="this is a multi-label classifier"):
        anatomy_export.score(classifier, tiny_tokenizer("bert"))


def test_a_sliced_checkpoint_says_what_it_is(tmp_path: Path):
    checkpoint = tiny_checkpoint("bert")
    blocks = model_blocks(checkpoint.model)
    plan = identity_plan(model_fingerprint(checkpoint.model), [block.width for block in blocks])
    sliced = slice_neurons(checkpoint.model, plan)
    sliced.config.problem_type = "multi_label_classification"
    save_checkpoint(Checkpoint(sliced, checkpoint.tokenizer), tmp_path)
    load_refused(tmp_path, "this is a multi-label classifier")
