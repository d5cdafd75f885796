#!/usr/bin/env python3
"""Runs a command and prints the most host memory that it had of its own (anonymous and shared pages; the page cache is not counted), in GB.

    python3 bench/host_memory.py COMMAND …
"""
import subprocess
import sys
import time

process = subprocess.Popen(sys.argv[1:])
peak = {"RssAnon": 0, "RssShmem": 0, "RssFile": 0, "both": 0}
while process.poll() is None:
    try:
        now = {line.split(":")[0]: int(line.split()[1]) * 1024 for line in open(f"/proc/{process.pid}/status") if line.startswith("Rss")}
    except (FileNotFoundError, ProcessLookupError):
        break
    now["both"] = now.get("RssAnon", 0) + now.get("RssShmem", 0)
    peak = {key: max(value, now.get(key, 0)) for key, value in peak.items()}
    time.sleep(0.05)
print("host memory peak:", {key: round(value / 1e9, 3) for key, value in peak.items()})
sys.exit(process.wait())
