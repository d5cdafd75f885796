"""The twin of a workload: transformers + PEFT on PyTorch, as a careful user would run it.

bf16 base, fp32 adapters under autocast, SDPA, fused AdamW, non-reentrant checkpointing. Prints one JSON line.
    python3 twin.py cases.json CASE
"""
import json
import statistics
import sys
import time

import torch
from peft import LoraConfig, get_peft_model
from transformers import Qwen2Config, Qwen2ForCausalLM


def main():
    spec = json.load(open(sys.argv[1]))
    case = next(c for c in spec["cases"] if c["name"] == sys.argv[2])
    torch.manual_seed(0)
    config = Qwen2Config(**{key: value for key, value in spec["shapes"][case["shape"]].items() if key != "model_type"}, attn_implementation="sdpa", use_cache=False)
    torch.set_default_dtype(torch.bfloat16)
    with torch.device("meta"):
        model = Qwen2ForCausalLM(config)
    torch.set_default_dtype(torch.float32)
    model.to_empty(device="cuda")
    model.model.rotary_emb.__init__(config=config, device="cuda")             # its tables are no weights: made again
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(0, 0.02) if parameter.dim() > 1 else parameter.fill_(1)
    model.tie_weights()
    if case["recompute"]:
        model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
        model.enable_input_require_grads()
    targets = case["targets"] or ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
    model = get_peft_model(model, LoraConfig(r=case["rank"], lora_alpha=32, target_modules=targets, task_type="CAUSAL_LM"))
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.data = parameter.data.float()
    trained = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=2e-4, fused=True)
    model.train()

    times, used, losses = [], 0, []
    for step in range(case["steps"] + 2):
        ids = torch.randint(0, config.vocab_size, (case["batch"], case["length"]), device="cuda")
        torch.cuda.synchronize()
        begin = time.perf_counter()
        with torch.autocast("cuda", torch.bfloat16):
            loss = model(input_ids=ids, labels=ids).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(trained, 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        losses.append(loss.item())
        torch.cuda.synchronize()
        if step >= 2:
            times.append(time.perf_counter() - begin)
        free, total = torch.cuda.mem_get_info()
        used = max(used, total - free)
    middle = statistics.median(times)
    print(json.dumps({"case": case["name"], "ms": 1000 * middle, "tokens_per_second": case["batch"] * case["length"] / middle, "bytes": used,
                      "allocated": torch.cuda.max_memory_allocated(), "loss": losses[-1], "version": f"torch {torch.__version__}", "gpu": torch.cuda.get_device_name()}))


main()
