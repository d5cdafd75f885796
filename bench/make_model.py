#!/usr/bin/env python3
"""Writes a model folder of random bf16 weights for a shape of cases.json, and rows of random tokens beside it.

    python3 bench/make_model.py SHAPE FOLDER [--rows 16] [--length 2048]
What is trained is of no use; how much memory and time it takes is that of the real model. Needs PyTorch.
"""
import argparse
import json
import pathlib
import random

import torch
from safetensors.torch import save_file

here = pathlib.Path(__file__).resolve().parent
parser = argparse.ArgumentParser()
parser.add_argument("shape")
parser.add_argument("folder")
parser.add_argument("--rows", type=int, default=16)
parser.add_argument("--length", type=int, default=2048)
options = parser.parse_args()
shape = json.load(open(here / "cases.json"))["shapes"][options.shape]
folder = pathlib.Path(options.folder)
folder.mkdir(parents=True, exist_ok=True)
json.dump({**shape, "torch_dtype": "bfloat16", "hidden_act": "silu"}, open(folder / "config.json", "w"))
h, m, v = shape["hidden_size"], shape["intermediate_size"], shape["vocab_size"]
dim = shape.get("head_dim", h // shape["num_attention_heads"])
q, kv = dim * shape["num_attention_heads"], dim * shape["num_key_value_heads"]
device = "cuda" if torch.cuda.is_available() else "cpu"
weight = lambda *size: torch.randn(*size, device=device, dtype=torch.bfloat16).mul_(0.02).cpu()
index = {}


def save(number, tensors):
    name = f"model-{number:05}.safetensors"
    save_file(tensors, folder / name)
    index.update({key: name for key in tensors})


assert shape["model_type"] in ("llama", "qwen2"), "only shapes of llama and qwen2"
save(0, {"model.embed_tokens.weight": weight(v, h), "model.norm.weight": torch.ones(h, dtype=torch.bfloat16), **({} if shape["tie_word_embeddings"] else {"lm_head.weight": weight(v, h)})})
for i in range(shape["num_hidden_layers"]):
    at = f"model.layers.{i}."
    tensors = {at + name + ".weight": weight(*size) for name, size in {
        "self_attn.q_proj": (q, h), "self_attn.k_proj": (kv, h), "self_attn.v_proj": (kv, h), "self_attn.o_proj": (h, q),
        "mlp.gate_proj": (m, h), "mlp.up_proj": (m, h), "mlp.down_proj": (h, m)}.items()}
    if shape["model_type"] == "qwen2":
        tensors |= {at + f"self_attn.{name}_proj.bias": torch.zeros(size, dtype=torch.bfloat16) for name, size in (("q", q), ("k", kv), ("v", kv))}
    tensors |= {at + name + ".weight": torch.ones(h, dtype=torch.bfloat16) for name in ("input_layernorm", "post_attention_layernorm")}
    save(i + 1, tensors)
json.dump({"metadata": {}, "weight_map": index}, open(folder / "model.safetensors.index.json", "w"))
random.seed(0)
with open(folder / "train.jsonl", "w") as file:
    for _ in range(options.rows):
        file.write(json.dumps({"input_ids": [random.randrange(v) for _ in range(options.length)]}) + "\n")
