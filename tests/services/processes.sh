# shellcheck shell=bash
# Processes in the background, ports and the scratch folder, for run.sh.

pids=()

# start_process LOG COMMAND...   The process is stopped when the tests end, however they end.
start_process() {
  local log=$1
  shift
  "$@" >"$log" 2>&1 </dev/null &
  pids+=("$!")
}

stop_processes() {
  local pid
  for pid in "${pids[@]}"; do kill "$pid" 2>/dev/null || true; done
  for _ in $(seq 50); do
    any_alive || break
    sleep 0.1
  done
  for pid in "${pids[@]}"; do kill -9 "$pid" 2>/dev/null || true; done
  wait 2>/dev/null || true
}

any_alive() {
  local pid
  for pid in "${pids[@]}"; do kill -0 "$pid" 2>/dev/null && return 0; done
  return 1
}

# free_ports N: ports the kernel gave out just now, all different.
free_ports() {
  /usr/bin/python3 - "$1" <<'PYTHON'
import socket, sys
sockets = [socket.create_server(('127.0.0.1', 0)) for _ in range(int(sys.argv[1]))]
print(*(s.getsockname()[1] for s in sockets))
PYTHON
}

# wait_for WHAT COMMAND...   Until the command succeeds, for at most 30 s.
wait_for() {
  local what=$1
  shift
  for _ in $(seq 150); do
    "$@" >/dev/null 2>&1 && return 0
    sleep 0.2
  done
  echo "services: $what did not start within 30 s" >&2
  return 1
}

# port_open PORT
port_open() {
  (exec 3<>"/dev/tcp/127.0.0.1/$1") 2>/dev/null
}

# make_scratch: prints a new folder on a file system with extended attributes, where Swift keeps its metadata.
make_scratch() {
  local base folder
  for base in "${TMPDIR:-/tmp}" /var/tmp /dev/shm "$HOME"; do
    folder=$(mktemp -d "$base/holdfast-services.XXXXXX" 2>/dev/null) || continue
    if /usr/bin/python3 -c 'import os, sys; os.setxattr(sys.argv[1], "user.test", b"x" * 2000)' "$folder" 2>/dev/null; then
      echo "$folder"
      return 0
    fi
    rm -rf "$folder"
  done
  echo "services: no folder found whose file system has extended attributes; set TMPDIR to one" >&2
  return 1
}

show_logs() {
  local log
  find "$scratch" -name '*.log' -size +0 | sort | while read -r log; do
    echo "--- the end of ${log#"$scratch"/}" >&2
    tail -n 25 "$log" | cut -c 1-300 >&2
  done
}
