"""A data set larger than memory, through the tool as a user starts it: tokenized, killed half way, resumed, started again.

    python3 bench/data/run.py --gib 5 --work /tmp/large

Writes WORK/train.jsonl (chats made of the words of this repository's documents, with numbers that never come twice) unless it is
there, and prints one JSON line for each start: seconds, the highest resident memory (VmHWM), and when training began.
"""
import argparse, json, os, random, re, shutil, signal, subprocess, sys, time

ROOT = os.path.abspath(os.path.join(os.path.dirname(__file__), "..", ".."))
TOOL = os.path.join(ROOT, "artifacts", "bin", "Tool", "release", "memopt.dll")


def words():
    text = ""
    for folder, _, names in os.walk(ROOT):
        if "/artifacts" in folder or "/.git" in folder or "/node_modules" in folder:
            continue
        text += "".join(open(os.path.join(folder, n), encoding="utf8").read() for n in sorted(names) if n.endswith((".md", ".cs")))
    return re.findall(r"\S+", text)


def make(path, size):
    rng, all_words, written, row = random.Random(7), words(), 0, 0
    pieces = []
    for _ in range(20000):
        at = rng.randrange(len(all_words) - 60)
        pieces.append(json.dumps(" ".join(all_words[at:at + rng.randrange(5, 60)]), ensure_ascii=False)[1:-1])
    with open(path + ".part", "w", encoding="utf8", buffering=1 << 22) as out:
        while written < size:
            turns = []
            for _ in range(rng.choice((1, 1, 2, 3))):
                turns.append('{"role":"user","content":"%d %s"}' % (row * 7919 + len(turns), rng.choice(pieces)))
                turns.append('{"role":"assistant","content":"%s"}' % " ".join(rng.choices(pieces, k=rng.choice((1, 2, 3)))))
            line = '{"messages":[%s]}\n' % ",".join(turns)
            out.write(line)
            written += len(line.encode())
            row += 1
    os.rename(path + ".part", path)


def start(tool, work, kill_at=None):
    """Runs the tool for one step; kills it when a share of the file is done. Memory is read from /proc until it ends."""
    began = time.monotonic()
    log = open(os.path.join(work, "log"), "w+", encoding="utf8")
    process = subprocess.Popen(["dotnet", "exec", tool, "run", "memopt.json", "--from-start", "--set", "train.steps=1"], cwd=work,
                               stdout=subprocess.DEVNULL, stderr=log)
    result, peak = {}, 0
    while process.poll() is None:
        try:
            status = open(f"/proc/{process.pid}/status").read()
            peak = int(re.search(r"VmHWM:\s+(\d+)", status).group(1)) / 1048576
        except (OSError, AttributeError):
            pass
        said = open(log.name, encoding="utf8").read()
        now = time.monotonic() - began
        for mark, key in (("\ndata         ", "said"), (" rows, ", "data_s"), ("\nmemory ", "memory_s"), ("\ntraining ", "training_s"), ("step 1 / 1", "step_s")):
            if mark in said and key not in result:
                result[key] = round(now, 2)
                result[key.replace("_s", "_gib")] = round(peak, 3)
        done = re.findall(r"tokenizing, MiB ([\d,]+) / ([\d,]+)", said)
        if kill_at and done:
            at, total = (int(n.replace(",", "")) for n in done[-1])
            if at >= kill_at * total:
                process.send_signal(signal.SIGKILL)
                result["killed_at_mib"] = at
                process.wait()
        time.sleep(0.02)
    result.update(seconds=round(time.monotonic() - began, 2), peak_gib=round(peak, 3), exit=process.returncode)
    said = open(log.name, encoding="utf8").read()
    result["says"] = [line for line in said.splitlines() if line.startswith("data ")]
    if process.returncode not in (0, -9):
        sys.exit(said)
    return result


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--gib", type=float, default=5)
    parser.add_argument("--work", required=True)
    parser.add_argument("--tool", default=TOOL)
    args = parser.parse_args()
    os.makedirs(args.work, exist_ok=True)
    file = os.path.join(args.work, "train.jsonl")
    if not os.path.exists(file):
        make(file, int(args.gib * (1 << 30)))
    shutil.rmtree(os.path.join(args.work, ".memopt"), ignore_errors=True)
    with open(os.path.join(args.work, "memopt.json"), "w") as out:
        json.dump({"model": {"source": os.path.join(ROOT, "samples/word-class/model")}, "data": {"train": "train.jsonl", "maxLength": 2048},
                   "train": {"batchSize": 4, "microBatch": 1}}, out)
    print(json.dumps({"file_gib": round(os.path.getsize(file) / (1 << 30), 3), "cores": os.cpu_count()}), flush=True)
    for name, kill in (("first, killed", 0.5), ("resumed", None), ("second", None), ("third", None)):
        print(json.dumps({"start": name, **start(args.tool, args.work, kill)}), flush=True)
    cache = sum(os.path.getsize(os.path.join(folder, n)) for folder, _, names in os.walk(os.path.join(args.work, ".memopt/data")) for n in names)
    print(json.dumps({"cache_gib": round(cache / (1 << 30), 3)}), flush=True)


main()
