#!/usr/bin/env bash
# The tests that need real services: OpenStack Swift (as an S3 server) and Redis, from Debian's packages.
# Installs what is missing, starts both on free ports in a scratch folder, runs every *.services.test.ts, stops both.
# Touches nothing outside the scratch folder but apt's own. Arguments go to jest, for example a path.
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
root=$(cd "$here/../.." && pwd)
export PATH="$root/node_modules/.bin:$PATH"

# shellcheck source=tests/services/packages.sh
. "$here/packages.sh"
# shellcheck source=tests/services/processes.sh
. "$here/processes.sh"
# shellcheck source=tests/services/swift.sh
. "$here/swift.sh"
# shellcheck source=tests/services/redis.sh
. "$here/redis.sh"

tests_seconds_max=${HOLDFAST_SERVICES_SECONDS_MAX:-2400}

finish() {
  local status=$?
  trap - EXIT
  stop_processes
  allow_services
  [ "$status" -eq 0 ] || [ -z "${scratch:-}" ] || show_logs
  [ -z "${scratch:-}" ] || rm -rf "$scratch"
  exit "$status"
}
trap finish EXIT
trap 'exit 130' INT
trap 'exit 143' TERM HUP

install_packages python3-swift memcached redis-server restic chromium curl unzip libarchive-tools
scratch=$(make_scratch)

start_swift "$scratch/swift"
start_redis "$scratch/redis"

export HOLDFAST_TEST_SERVICES=1
echo "services: running the tests"
cd "$root"
# In the background, so that a signal to this script is acted on at once and reaches the tests.
# Clients of services that were taken away keep timers; the server ends its process just as firmly.
timeout --kill-after=20 "$tests_seconds_max" npm run --silent jest -- -w 1 --forceExit "$@" </dev/null &
pids+=("$!")
wait "$!"

# And those of `npm test` that are skipped where a program is missing.
if [ $# -eq 0 ]; then
  mapfile -t with_tools < <(grep -rl --include='*.test.ts' "helpers/tools.ts'" server tests)
  # Without a file to run, jest would run them all.
  if [ ${#with_tools[@]} -eq 0 ]; then
    echo "services: no test asks for tests/helpers/tools.ts any more: look for what they ask for now, here" >&2
    exit 1
  fi
  HOLDFAST_TEST_SERVICES='' HOLDFAST_TEST_TOOLS=1 timeout --kill-after=20 "$tests_seconds_max" \
    npm run --silent jest -- -w 1 "${with_tools[@]}" </dev/null &
  pids+=("$!")
  wait "$!"
fi
