#!/usr/bin/env bash
# Installs what the tests need, builds without warnings, and runs every test. Ends with "N passed, N failed".
set -uo pipefail
cd "$(dirname "$0")"
export DOTNET_CLI_TELEMETRY_OPTOUT=1 DOTNET_NOLOGO=1
# Threads that wait sleep: beside other work on the same cores trainings take half as long or less, alone a quarter longer.
export OMP_WAIT_POLICY=PASSIVE
fail() { echo "test.sh: $*" >&2; exit 1; }

command -v dotnet >/dev/null || fail "the .NET SDK is missing (see global.json)"
command -v npm >/dev/null || fail "npm is missing: the tokenizer and template tests compare with Hugging Face's JavaScript libraries"
if ! command -v chromium >/dev/null && ! command -v chromium-browser >/dev/null && ! command -v google-chrome >/dev/null; then
  # The page of `ui` is tested in a browser.
  root=$([ "$(id -u)" -eq 0 ] || echo sudo)
  $root apt-get update -qq && $root env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends chromium >/dev/null || fail "chromium is missing and could not be installed: the page of ui is tested in it"
fi
(cd tests/oracles && npm ci --ignore-scripts --no-audit --no-fund --silent) || fail "npm ci failed in tests/oracles"

dotnet restore Tool.sln -v quiet || fail "restore failed"
dotnet build Tool.sln -c Release --no-restore -v quiet -warnaserror || fail "build failed"
dotnet format Tool.sln --no-restore --verify-no-changes || fail "run: dotnet format"

passed=0 failed=0 broken=0
for project in tests/*/*.Tests.csproj; do
  echo "== $project"
  log=$(mktemp)
  dotnet test "$project" -c Release --no-build 2>&1 | tee "$log"
  status=${PIPESTATUS[0]}
  line=$(grep -E '^(Passed|Failed)! ' "$log" | tail -1)
  rm -f "$log"
  p=$(sed -nE 's/.*Passed: +([0-9]+).*/\1/p' <<<"$line") f=$(sed -nE 's/.*Failed: +([0-9]+).*/\1/p' <<<"$line")
  passed=$((passed + ${p:-0})) failed=$((failed + ${f:-0}))
  # A run that ends badly or counts nothing has failed, whatever it printed.
  if [ "$status" -ne 0 ] || [ -z "$line" ]; then broken=1; [ "${f:-0}" -gt 0 ] || failed=$((failed + 1)); fi
done
echo "$passed passed, $failed failed"
[ "$failed" -eq 0 ] && [ "$broken" -eq 0 ] && [ "$passed" -gt 0 ]
