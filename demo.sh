#!/usr/bin/env bash
# Restores, builds, fine-tunes the small model that ships with the tool on two CPU cores, and queries the run.
set -euo pipefail
cd "$(dirname "$0")"
export DOTNET_CLI_TELEMETRY_OPTOUT=1 DOTNET_NOLOGO=1

dotnet restore samples/word-class/word-class.csproj -v quiet   # brings libtorch for the CPU into NuGet's cache
dotnet build src/Tool -c Release -v quiet
cd samples/word-class
run() { dotnet ../../artifacts/bin/Tool/release/memopt.dll "$@"; }

echo "== the base model"
run eval --model model --data eval.jsonl
echo "== the fine-tune"
run run memopt.json --from-start
echo "== the runs"
run runs list --limit 5
run runs show "$(run runs list --limit 1 --json | sed -nE 's/.*"runId": "([^"]+)".*/\1/p')"
echo "== an answer"
run infer --model model --adapter .memopt/memopt/adapter 'What part of speech is "serendipity"?'
