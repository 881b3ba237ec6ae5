// A bundle's classifier in JavaScript, the same in a browser and in Node.

const INT64 = { input_ids: (one) => one.ids, attention_mask: (one) => one.ids.map(() => 1), token_type_ids: (one) => one.ids.map(() => 0) };

/**
 * Load bundle.json, tokenizer and model.
 *
 * ort: the module onnxruntime-web or onnxruntime-node. Tokenizer: the class of @huggingface/tokenizers.
 * read: gives a file of the bundle by name, as an ArrayBuffer or Uint8Array.
 */
export async function loadClassifier(ort, Tokenizer, read) {
  const text = async (name) => JSON.parse(new TextDecoder().decode(await read(name)));
  const manifest = await text("bundle.json");
  const tokenizer = new Tokenizer(await text("tokenizer.json"), await text("tokenizer_config.json"));
  const session = await ort.InferenceSession.create(new Uint8Array(await read("model.onnx")), { executionProviders: [ort.provider ?? "cpu"] });
  return new Classifier(ort, manifest, tokenizer, session);
}

export class Classifier {
  constructor(ort, manifest, tokenizer, session) {
    Object.assign(this, { ort, manifest, tokenizer, session });
  }

  /** Token ids of a sentence, cut to the bundle's longest: the last token, which ends every sequence, stays. */
  tokenize(sentence) {
    const ids = Array.from(this.tokenizer.encode(sentence).ids, Number);
    const most = this.manifest.max_length;
    return ids.length <= most ? ids : [...ids.slice(0, most - 1), ids.at(-1)];
  }

  /** Logits of every class for one sequence of token ids. */
  async logits(ids) {
    const feeds = {};
    for (const name of this.session.inputNames) {
      const values = BigInt64Array.from(INT64[name]({ ids }), BigInt);
      feeds[name] = new this.ort.Tensor("int64", values, [1, ids.length]);
    }
    return Array.from((await this.session.run(feeds)).logits.data);
  }

  /** Label, probability and milliseconds of one sentence, the tokenizer's part included. */
  async classify(sentence) {
    const start = performance.now();
    const logits = await this.logits(this.tokenize(sentence));
    const milliseconds = performance.now() - start;
    const exponentials = logits.map((value) => Math.exp(value - Math.max(...logits)));
    const best = logits.indexOf(Math.max(...logits));
    const probability = exponentials[best] / exponentials.reduce((sum, value) => sum + value, 0);
    return { label: this.manifest.labels[best], probability, milliseconds };
  }
}
