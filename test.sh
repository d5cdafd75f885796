#!/usr/bin/env bash
# Installs what the tests need, builds without warnings, and runs every test. Ends with "N passed, N failed".
#   ./test.sh          the tests of every change
#   ./test.sh --full   storms, kills and large files at full length too
set -uo pipefail
cd "$(dirname "$0")"
export DOTNET_CLI_TELEMETRY_OPTOUT=1 DOTNET_NOLOGO=1
# Two test projects run beside each other: each computes with one thread.
export OMP_NUM_THREADS=1
# The tests start hundreds of processes that live for seconds: optimizing their code by its profile costs more than it
# gives.
export DOTNET_TieredPGO=0
fail() { echo "test.sh: $*" >&2; exit 1; }
case "${1:-}" in
  "") ;;
  --full) export MEMOPT_TESTS_FULL=1 ;;
  *) fail "the one option is --full" ;;
esac
began=$SECONDS

command -v dotnet >/dev/null || fail "the .NET SDK is missing (see global.json)"
command -v npm >/dev/null || fail "npm is missing: the tokenizer and template tests compare with Hugging Face's JavaScript libraries"
if ! command -v mpirun.openmpi >/dev/null || ! command -v mpiexec.mpich >/dev/null; then
  # Ranks on a CPU are started by Open MPI and by MPICH.
  root=$([ "$(id -u)" -eq 0 ] || echo sudo)
  $root apt-get update -qq && $root env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends openmpi-bin mpich >/dev/null || fail "Open MPI and MPICH are missing and could not be installed: the ranks of a training on CPUs are tested with them"
fi
if ! command -v chromium >/dev/null && ! command -v chromium-browser >/dev/null && ! command -v google-chrome >/dev/null; then
  # The page of `ui` is tested in a browser.
  root=$([ "$(id -u)" -eq 0 ] || echo sudo)
  $root apt-get update -qq && $root env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends chromium >/dev/null || fail "chromium is missing and could not be installed: the page of ui is tested in it"
fi
(cd tests/oracles && npm ci --ignore-scripts --no-audit --no-fund --silent) || fail "npm ci failed in tests/oracles"

dotnet restore Tool.sln -v quiet || fail "restore failed"
# dotnet format finds nothing in what CSharpier has laid out: it is asked with --full.
eng/format --check $([ -n "${MEMOPT_TESTS_FULL:-}" ] || echo --quick) &
formatted=$!
dotnet build Tool.sln -c Release --no-restore -v quiet -warnaserror || fail "build failed"
wait "$formatted" || fail "a file is not formatted"

echo "built and checked in $((SECONDS - began)) s"

# What each test took, of one project's results: seconds, project, test.
durations() {
  sed -nE 's/.*<UnitTestResult .*testName="([^"]*)".* duration="([0-9]+):([0-9]+):([0-9.]+)".*/\2 \3 \4 \1/p' "$1" |
    awk -v project="$2" '{ took = $1 * 3600 + $2 * 60 + $3; $1 = $2 = $3 = ""; printf "%8.1f s  %s:%s\n", took, project, $0 }'
}

results=$(mktemp -d)
trap 'rm -rf "$results"' EXIT

# Runs one project's tests; leaves its log, its exit status and its time in $results.
run() {
  local name=$1 start=$SECONDS settings=()
  local project=(tests/$name/*.csproj) given=(tests/$name/*.runsettings)
  local assembly=$(basename "${project[0]}" .csproj)
  [ ! -e "${given[0]}" ] || settings=(--settings "${given[0]}")
  # The assembly and not the project: MSBuild need not evaluate it again.
  # A script ignores interrupts in the background; the tests send some.
  env --default-signal=INT dotnet test "artifacts/bin/$assembly/release/$assembly.dll" "${settings[@]}" --logger "trx;LogFileName=$results/$name.trx" >"$results/$name.log" 2>&1
  echo $? >"$results/$name.status"
  echo "$name took $((SECONDS - start)) s" >>"$results/times"
  durations "$results/$name.trx" "$name" >>"$results/durations"
  echo "== $name"
  cat "$results/$name.log"
}

# Two projects at a time, the longest first: each waits for processes, disks and sockets during a quarter of its time.
longest="Build.Tests Tool.Tests Trainer.Tests Text.Tests"
others=$(for project in tests/*/*.Tests.csproj; do basename "$(dirname "$project")"; done | grep -vxF "$(tr ' ' '\n' <<<"$longest")")
for name in $longest $others; do
  while [ "$(jobs -rp | wc -l)" -ge 2 ]; do wait -n; done
  run "$name" &
done
wait

passed=0 failed=0 broken=0
for name in $longest $others; do
  line=$(grep -E '^(Passed|Failed)! ' "$results/$name.log" | tail -1)
  p=$(sed -nE 's/.*Passed: +([0-9]+).*/\1/p' <<<"$line") f=$(sed -nE 's/.*Failed: +([0-9]+).*/\1/p' <<<"$line")
  passed=$((passed + ${p:-0})) failed=$((failed + ${f:-0}))
  # A run that ends badly or counts nothing has failed, whatever it printed.
  if [ "$(cat "$results/$name.status")" -ne 0 ] || [ -z "$line" ]; then broken=1; [ "${f:-0}" -gt 0 ] || failed=$((failed + 1)); fi
done
echo "The slowest 30 tests:"
sort -rn "$results/durations" | sed -n 1,30p
cat "$results/times"
echo "all took $((SECONDS - began)) s"
echo "$passed passed, $failed failed"
[ "$failed" -eq 0 ] && [ "$broken" -eq 0 ] && [ "$passed" -gt 0 ]
