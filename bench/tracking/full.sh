#!/usr/bin/env bash
# A store on a file system of 4 MiB that fills while a training writes, is asked while it is full, and then is made read-only. Needs user namespaces.
set -euo pipefail
cd "$(dirname "$0")"
dotnet build -c Release full.cs -o "${TMPDIR:-/tmp}/memopt-full" -p:ArtifactsPath="${TMPDIR:-/tmp}/memopt-full-artifacts" -v quiet   # scale.cs has the same place else
tool="${TMPDIR:-/tmp}/memopt-full/full.dll" place=$(mktemp -d) instead=$(mktemp -d)
export tool place instead
unshare -rm bash -c '
  mount -t tmpfs -o size=4m none "$place"
  head -c 3400000 /dev/zero > "$place/ballast"
  echo "a training while the disk fills:"; dotnet exec "$tool" train "$place/store" "$place/ballast"
  cat /dev/zero > "$place/more" 2>/dev/null || true
  echo "asked while it is full:"; dotnet exec "$tool" ask "$place/store"
  rm "$place/more"
  echo "asked with room:"; dotnet exec "$tool" ask "$place/store"
  mount -o remount,ro "$place"
  echo "asked when read-only:"; dotnet exec "$tool" ask "$place/store"
  echo "a training begins there:"; dotnet exec "$tool" begin "$place/store" "$instead"
'
echo "recorded instead:"; dotnet exec "$tool" ask "$instead"
