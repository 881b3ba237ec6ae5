// Check a bundle in Node: node check.mjs onnxruntime-web|onnxruntime-node BUNDLE
// Prints one JSON object: how far the reference texts' logits are off, and for how many the token ids differ.

import { readFile } from "node:fs/promises";
import { join } from "node:path";

import { Tokenizer } from "@huggingface/tokenizers";

import { loadClassifier } from "./classifier.js";

const [engine, bundle] = process.argv.slice(2);
const loaded = await import(engine);
const ort = { ...(loaded.default ?? loaded), provider: engine === "onnxruntime-web" ? "wasm" : "cpu" };
if (engine === "onnxruntime-web") ort.env.wasm.numThreads = 1;
const classifier = await loadClassifier(ort, Tokenizer, (name) => readFile(join(bundle, name)));
let error = 0;
let otherIds = 0;
for (const reference of classifier.manifest.references) {
  const found = await classifier.logits(reference.input_ids);
  found.forEach((value, index) => (error = Math.max(error, Math.abs(value - reference.logits[index]))));
  otherIds += classifier.tokenize(reference.text).join() !== reference.input_ids.join();
}
console.log(JSON.stringify({ error, otherIds, texts: classifier.manifest.references.length }));
