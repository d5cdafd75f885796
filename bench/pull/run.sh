#!/usr/bin/env bash
# Speed of `memopt pull` on loopback beside curl with as many connections (8), each a whole process from start to end.
# usage: bench/pull/run.sh [MiB a file] [rounds] [folder]     4 files; the folder says which disk
set -euo pipefail
cd "$(dirname "$0")/../.."
mib=${1:-256} rounds=${2:-5} folder=$(mktemp -d -p "${3:-${TMPDIR:-/tmp}}")
tool=${MEMOPT_DLL:-artifacts/bin/Tool/release/memopt.dll}
[ -f "$tool" ] || dotnet build src/Tool -c Release -v quiet
mkdir "$folder/served"
python3 bench/pull/server.py "$folder/served" 4 "$mib" > "$folder/port" &
server=$!
trap 'kill $server; rm -rf "$folder"' EXIT
until [ -s "$folder/port" ]; do sleep 0.2; done
url=http://127.0.0.1:$(cat "$folder/port")
half=$((mib << 19))

with_curl() {
  local arguments=()
  for i in 1 2 3 4; do
    local file=$url/org/model/resolve/main/model-0000$i-of-00004.safetensors
    arguments+=(-r "0-$((half - 1))" -o "$folder/curl/$i.a" "$file" --next -s -r "$half-" -o "$folder/curl/$i.b" "$file" --next -s)
  done
  unset 'arguments[-1]' 'arguments[-1]'
  curl -s -Z --parallel-immediate --parallel-max 8 "${arguments[@]}" 2> /dev/null
}
with_memopt() { HF_ENDPOINT=$url HF_HUB_CACHE=$folder/hub dotnet exec "$tool" pull org/model > /dev/null 2>&1; }
seconds() { local start=$EPOCHREALTIME; "$@"; echo "$start $EPOCHREALTIME" | awk '{ printf "%.2f", $2 - $1 }'; }
checked() { with_curl; openssl dgst -sha256 "$folder"/curl/* > /dev/null; sync "$folder"/curl/*; }

echo "round  curl  curl,sha256,sync  memopt   (seconds, 4 x $mib MiB)"
for round in $(seq "$rounds"); do
  rm -rf "$folder/curl" "$folder/hub"; mkdir "$folder/curl"; sync; plain=$(seconds with_curl)
  rm -rf "$folder/curl"; mkdir "$folder/curl"; sync; full=$(seconds checked)
  rm -rf "$folder/curl"; sync; ours=$(seconds with_memopt)
  echo "$round  $plain  $full  $ours"
done | tee "$folder/times"
awk 'function median(v, n,  i, j, t) { for (i = 1; i <= n; i++) for (j = i + 1; j <= n; j++) if (v[j] < v[i]) { t = v[i]; v[i] = v[j]; v[j] = t } return v[int((n + 1) / 2)] }
  { a[NR] = $2; b[NR] = $3; c[NR] = $4 }
  END { m = median(c, NR); printf "speed against curl alone: %.2f; against curl, sha256 (openssl) and sync: %.2f (medians)\n", median(a, NR) / m, median(b, NR) / m }' "$folder/times"
