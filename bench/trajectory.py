#!/usr/bin/env python3
"""Fifty steps of the nano model on the same batches from the same adapter: ours in bf16 beside the twin in fp32 and in several bf16 runs.

The twin's bf16 runs differ from each other only in how the same sums are made (attention kernel, micro-batches, autocast or bf16 weights).
Their distance from the twin's fp32 run is the noise of the type; ours should lie within it.
    python3 bench/trajectory.py --out DIR --ours "dotnet …/memopt.dll"
"""
import argparse
import json
import os
import pathlib
import random
import shlex
import shutil
import subprocess

import torch
from peft import LoraConfig, get_peft_model, PeftModel
from tokenizers import Tokenizer
from transformers import AutoModelForCausalLM

STEPS, BATCH, RATE = 50, 16, 2e-3
sample = pathlib.Path(__file__).resolve().parent.parent / "samples" / "word-class"


def rows():
    tokenizer = Tokenizer.from_file(str(sample / "model" / "tokenizer.json"))
    lines = [json.loads(line) for line in open(sample / "train.jsonl")]
    random.Random(7).shuffle(lines)
    for line in lines[: STEPS * BATCH]:
        ids = []
        labels = []
        for message in line["messages"]:
            piece = tokenizer.encode(f"<|im_start|>{message['role']}\n{message['content']}<|im_end|>\n", add_special_tokens=False).ids
            ids += piece
            labels += piece if message["role"] == "assistant" else [-100] * len(piece)
        yield {"input_ids": ids, "labels": labels}


def twin(data, start, dtype, attention="sdpa", split=1, autocast=True):
    torch.manual_seed(0)
    base = AutoModelForCausalLM.from_pretrained(sample / "model", dtype=dtype, attn_implementation=attention).cuda()
    model = PeftModel.from_pretrained(base, start, is_trainable=True).train()
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.data = parameter.data.float()
    trained = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=RATE, weight_decay=0, betas=(0.9, 0.999), eps=1e-8)
    losses = []
    for step in range(STEPS):
        batch = data[step * BATCH : (step + 1) * BATCH]
        count = sum(sum(l >= 0 for l in row["labels"][1:]) for row in batch)
        total = 0.0
        for part in [batch[i::split] for i in range(split)]:
            longest = max(len(row["input_ids"]) for row in part)
            ids = torch.tensor([row["input_ids"] + [0] * (longest - len(row["input_ids"])) for row in part]).cuda()
            labels = torch.tensor([row["labels"] + [-100] * (longest - len(row["labels"])) for row in part]).cuda()
            mask = torch.tensor([[1] * len(row["input_ids"]) + [0] * (longest - len(row["input_ids"])) for row in part]).cuda()
            with torch.autocast("cuda", torch.bfloat16, enabled=autocast and dtype != torch.float32):
                logits = model(input_ids=ids, attention_mask=mask).logits
            loss = torch.nn.functional.cross_entropy(logits[:, :-1].float().reshape(-1, logits.shape[-1]), labels[:, 1:].reshape(-1), reduction="sum", ignore_index=-100) / count
            loss.backward()
            total += loss.item()
        torch.nn.utils.clip_grad_norm_(trained, 1.0)
        optimizer.step()
        optimizer.zero_grad()
        losses.append(total)
    return losses


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--out", default="bench-out")
    parser.add_argument("--ours", required=True)
    options = parser.parse_args()
    out = pathlib.Path(options.out)
    work = out / "trajectory"
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir(parents=True)
    data = list(rows())
    (work / "train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in data))
    torch.manual_seed(1)
    base = AutoModelForCausalLM.from_pretrained(sample / "model", dtype=torch.float32)
    names = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
    start = work / "start"
    get_peft_model(base, LoraConfig(r=16, lora_alpha=32, target_modules=names, task_type="CAUSAL_LM")).save_pretrained(start)

    runs = {"twin fp32": twin(data, start, torch.float32), "twin bf16 sdpa": twin(data, start, torch.bfloat16), "twin bf16 eager": twin(data, start, torch.bfloat16, "eager"),
            "twin bf16 split": twin(data, start, torch.bfloat16, split=4)}
    for name, dtype in (("ours fp32", "float32"), ("ours bf16", "bfloat16")):
        config = {"model": {"source": str(sample / "model"), "dtype": dtype}, "data": {"train": "train.jsonl", "maxLength": 512, "shuffle": False}, "adapter": {"kind": "lora", "from": "start", "rank": 16, "alpha": 32},
                  "train": {"steps": STEPS, "batchSize": BATCH, "learningRate": RATE, "schedule": "constant", "weightDecay": 0, "clip": 1.0}, "tracking": {"store": f"store-{dtype}"}}
        (work / f"{dtype}.json").write_text(json.dumps(config))
        tool = shlex.split(options.ours)
        done = subprocess.run(tool + ["run", f"{dtype}.json", "--backend", "cuda", "--json"], cwd=work, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr[-2000:]
        shown = subprocess.run(tool + ["runs", "show", json.loads(done.stdout)["runId"], "--store", f"store-{dtype}", "--json"], cwd=work, capture_output=True, text=True)
        runs[name] = [step["loss"] for step in json.loads(shown.stdout)["steps"]]

    truth = runs["twin fp32"]
    table = {name: {"mean": sum(abs(a - b) for a, b in zip(losses, truth)) / STEPS, "most": max(abs(a - b) for a, b in zip(losses, truth)), "last": losses[-1]} for name, losses in runs.items()}
    spread = [max(abs(a - b) for a, b in zip(runs[x], runs[y])) for x in runs for y in runs if x < y and "twin bf16" in x and "twin bf16" in y]
    lines = ["| run | mean distance from the twin's fp32 | largest | last loss |", "| --- | --- | --- | --- |"]
    lines += [f"| {name} | {row['mean']:.2e} | {row['most']:.2e} | {row['last']:.5f} |" for name, row in table.items()]
    lines.append(f"\nLargest distance between two of the twin's bf16 runs: {max(spread):.2e}.")
    (out / "trajectory.md").write_text("\n".join(lines) + "\n")
    (out / "trajectory.json").write_text(json.dumps({"table": table, "runs": runs}, indent=1))
    shutil.rmtree(work)
    print("\n".join(lines))


main()
