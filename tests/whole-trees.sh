#!/usr/bin/env bash
# The README's commands on real trees, whole: /usr/share and this project's node_modules. Two backups with changes between
# them, both moments restored, and diff and find asked whether they are the same. Used by .ci/run; takes a few minutes.
# Usage: tests/whole-trees.sh [FOLDER...]      The server runs on a scratch data folder and a free port.
set -euo pipefail

cd "$(dirname "${BASH_SOURCE[0]}")/.."
scratch=$(mktemp -d "${TMPDIR:-/tmp}/holdfast-trees.XXXXXX")
server=
end() {
  # npm dies of the signal: the status of wait must not become the script's.
  if [ -n "$server" ]; then kill "$server" 2>/dev/null && wait "$server" 2>/dev/null || true; fi
  rm -rf "$scratch"
}
trap end EXIT

HOLDFAST_PORT=$(node -e 'const s = require("net").createServer().listen(0, () => { console.log(s.address().port); s.close(); })')
export HOLDFAST_PORT HOLDFAST_DATA="$scratch/data"
trees=${*:-/usr/share node_modules}

# tree FOLDER   What diff -r does not compare: kind, mode, link target and time of everything, a line each.
tree() { (cd "$1" && find . -printf '%P\t%y %m %l\t%T@\n' | LC_ALL=C sort); }

same() {
  diff -r --no-dereference "$1" "$2"
  tree "$1" >"$scratch/expected"
  tree "$2" >"$scratch/found"
  diff <(cut -f 1,2 "$scratch/expected") <(cut -f 1,2 "$scratch/found")
  # Node sets times as numbers that are good to a quarter of a microsecond.
  paste <(cut -f 3 "$scratch/expected") <(cut -f 3 "$scratch/found") |
    awk '{ off = $1 - $2; if (off < -0.00001 || off > 0.00001) wrong++ } END { if (wrong) { print wrong " times differ"; exit 1 } }'
}

agent() { npm run --silent agent -- "$@"; }

mkdir "$scratch/now"
for folder in $trees; do cp -a "$folder" "$scratch/now/"; done
echo "$(find "$scratch/now" -type f | wc -l) files, $(du -sm "$scratch/now" | cut -f1) MiB"

npm start >"$scratch/server.log" 2>&1 &
server=$!
for _ in $(seq 600); do
  if grep -q 'npm run agent -- backup PATH' "$scratch/server.log"; then break; fi
  sleep 0.1
done

agent backup "$scratch/now" --no-exclude-defaults
sleep 1
moment=$(date -u +%Y-%m-%dT%H:%M:%SZ)
cp -a "$scratch/now" "$scratch/then"
sleep 1

# Changed, new, deleted, renamed, another mode, another kind.
find "$scratch/now" -type f -size +4k | LC_ALL=C sort | awk 'NR % 500 == 1' | while read -r file; do printf 'changed' >>"$file"; done
head -c 3000000 /dev/urandom >"$scratch/now/new file"
find "$scratch/now" -mindepth 2 -maxdepth 2 -type d | LC_ALL=C sort | awk 'NR % 40 == 7' | while read -r folder; do rm -rf "$folder"; done
find "$scratch/now" -mindepth 2 -maxdepth 2 -type d | LC_ALL=C sort | awk 'NR % 40 == 8' | while read -r folder; do mv "$folder" "$folder renamed"; done
find "$scratch/now" -mindepth 2 -maxdepth 2 -type f | LC_ALL=C sort | awk 'NR % 20 == 3' | while read -r file; do chmod 600 "$file"; done
first=$(find "$scratch/now" -mindepth 2 -maxdepth 2 -type d | LC_ALL=C sort | sed -n 2p)
[ -n "$first" ] || { echo 'give trees that hold folders'; exit 1; }
rm -rf "$first" && ln -s nowhere "$first"

agent backup "$scratch/now" --no-exclude-defaults
agent restore "$scratch/now" --to "$scratch/restored-now" | tail -n 4
same "$scratch/now" "$scratch/restored-now/now"
rm -rf "$scratch/restored-now"
agent restore "$scratch/now" --at "$moment" --to "$scratch/restored-then" | tail -n 4
same "$scratch/then" "$scratch/restored-then/now"
echo 'both moments are the same, byte for byte, with kinds, modes, links and times'
