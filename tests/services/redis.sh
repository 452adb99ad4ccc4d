# shellcheck shell=bash
# Redis on a free port, with nothing kept on disk. Sets HOLDFAST_TEST_REDIS_URL.

# start_redis FOLDER
start_redis() {
  local folder=$1 port
  mkdir -p "$folder"
  port=$(free_ports 1)
  # noeviction: what BullMQ requires of a Redis, and what production must set.
  start_process "$folder/redis.log" /usr/bin/redis-server --bind 127.0.0.1 --port "$port" --dir "$folder" \
    --save '' --appendonly no --maxmemory-policy noeviction --daemonize no
  wait_for Redis redis-cli -p "$port" ping
  export HOLDFAST_TEST_REDIS_URL="redis://127.0.0.1:$port"
  echo "services: Redis is up"
}
