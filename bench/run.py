#!/usr/bin/env python3
"""Runs the cases of cases.json, ours and the twin's in turn on one GPU, and writes a table of ratios as Markdown and JSON.

    python3 bench/run.py --out DIR [--cases NAME,NAME] [--ours "dotnet …/Bench.dll"] [--only ours|twin] [-- more arguments for ours]
Every run is a process of its own, so that the memory the operating system sees is that run's alone.
"""
import argparse
import json
import os
import pathlib
import shlex
import subprocess
import sys

here = pathlib.Path(__file__).resolve().parent


def run(command):
    done = subprocess.run(command, capture_output=True, text=True)
    lines = [line for line in done.stdout.splitlines() if line.startswith("{")]
    if done.returncode or not lines:
        return {"error": (done.stderr or done.stdout).strip().splitlines()[-1:] or [f"exit {done.returncode}"]}, done.stderr
    return json.loads(lines[-1]), done.stderr


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--out", default="bench-out")
    parser.add_argument("--cases")
    parser.add_argument("--ours", default=f"dotnet run --project {here} -c Release --")
    parser.add_argument("--only", choices=["ours", "twin"])
    parser.add_argument("--group", default="twin", help="twin: beside PyTorch and PEFT; memory: the plan beside what was taken; small: on a card made small, beside the whole card")
    parser.add_argument("rest", nargs="*")
    options = parser.parse_args()
    out = pathlib.Path(options.out)
    out.mkdir(parents=True, exist_ok=True)
    spec = json.load(open(here / "cases.json"))
    chosen = [c for c in spec["cases"] if (c["name"] in options.cases.split(",") if options.cases else c["group"] == options.group)]
    results = []
    for case in chosen:
        row = {"case": case["name"]}
        if options.only != "twin":
            row["ours"], text = run(shlex.split(options.ours) + [str(here / "cases.json"), case["name"], *options.rest])
            if "error" in row["ours"]:
                print(text[-3000:], file=sys.stderr)
        if options.only != "ours" and case["kind"] != "qlora" and case["group"] == "twin":
            row["twin"], text = run([sys.executable, str(here / "peers" / "twin.py"), str(here / "cases.json"), case["name"]])
            if "error" in row["twin"]:
                print(text[-3000:], file=sys.stderr)
        results.append(row)
        print(json.dumps(row), flush=True)
        (out / "bench.json").write_text(json.dumps(results, indent=1) + "\n")   # so that a run that is cut short leaves what it has
    by_name = {row["case"]: row for row in results}
    lines = ["| case | ours, ms | tok/s | GB | twin, ms | tok/s | GB | speed | memory |", "| --- | --- | --- | --- | --- | --- | --- | --- | --- |"]
    for case in chosen:
        row = by_name[case["name"]]
        ours, twin = row.get("ours", {}), row.get("twin", {})
        beside = "twin"
        if "beside" in case and "ms" in by_name.get(case["beside"], {}).get("ours", {}):
            twin, beside = by_name[case["beside"]]["ours"], case["beside"]
        cell = lambda r, key, scale, form: format(r[key] / scale, form) if key in r else "–"
        row["speed"] = ours["tokens_per_second"] / twin["tokens_per_second"] if "ms" in ours and "ms" in twin else None
        row["memory"] = ours["bytes"] / twin["bytes"] if "ms" in ours and "ms" in twin else None
        lines.append(f"| {case['name']}{'' if beside == 'twin' else ' (beside our ' + beside + ')'} | " + " | ".join([
            cell(ours, "ms", 1, ".1f"), cell(ours, "tokens_per_second", 1, ",.0f"), cell(ours, "bytes", 1e9, ".2f"),
            cell(twin, "ms", 1, ".1f"), cell(twin, "tokens_per_second", 1, ",.0f"), cell(twin, "bytes", 1e9, ".2f"),
            f"{row['speed']:.2f}×" if row["speed"] else "–", f"{row['memory']:.2f}" if row["memory"] else "–"]) + " |")
    for row in results:
        ours = row.get("ours", {})
        if "planned" in ours:
            print(f"{row['case']}: planned {ours['planned'] / 1e9:.3f} GB, taken {ours['bytes'] / 1e9:.3f} GB, {100 * (ours['planned'] / ours['bytes'] - 1):+.1f} %; {ours['rung']}; host {ours['host_bytes'] / 1e9:.2f} GB")
    (out / "bench.md").write_text("\n".join(lines) + "\n")
    (out / "bench.json").write_text(json.dumps(results, indent=1) + "\n")
    print("\n".join(lines))


main()
