# shellcheck shell=bash
# OpenStack Swift with its S3 interface: one replica on one device, every server in one process.
# Sets HOLDFAST_TEST_S3_ENDPOINT, _ACCESS_KEY, _SECRET_KEY, _BUCKET and _DOMAIN (for bucket names in the host name).

# start_swift FOLDER
start_swift() {
  local folder=$1 proxy account container object cache
  read -r proxy account container object cache < <(free_ports 5)
  mkdir -p "$folder/devices/d1" "$folder/cache"

  swift_config "$folder"
  swift_ring "$folder" account "$account"
  swift_ring "$folder" container "$container"
  swift_ring "$folder" object "$object"

  # Tempauth refuses to work without memcached.
  start_process "$folder/memcached.log" /usr/bin/memcached -u "$(id -un)" -l 127.0.0.1 -p "$cache" -m 64
  local kind
  for kind in account container object; do
    swift_storage_server "$folder" "$kind" "${!kind}"
    start_process "$folder/$kind.log" /usr/bin/python3 "$here/swift-server.py" "$kind" "$folder"
  done
  swift_proxy_server "$folder" "$proxy" "$cache"
  start_process "$folder/proxy.log" /usr/bin/python3 "$here/swift-server.py" proxy "$folder"

  local port
  for port in "$account" "$container" "$object" "$cache"; do wait_for "Swift (port $port)" port_open "$port"; done
  export HOLDFAST_TEST_S3_ENDPOINT="http://127.0.0.1:$proxy"
  export HOLDFAST_TEST_S3_ACCESS_KEY=test:tester
  export HOLDFAST_TEST_S3_SECRET_KEY=testing
  export HOLDFAST_TEST_S3_BUCKET=holdfast-test
  export HOLDFAST_TEST_S3_DOMAIN=s3.test
  wait_for 'Swift (proxy)' port_open "$proxy"
  wait_for 'a bucket in Swift' timeout 10 node --disable-warning=ExperimentalWarning "$here/make-bucket.ts"
  echo "services: Swift is up"
}

swift_config() {
  cat >"$1/swift.conf" <<CONF
[swift-hash]
swift_hash_path_prefix = holdfast
swift_hash_path_suffix = tests

[storage-policy:0]
name = only
default = yes
CONF
}

# swift_ring FOLDER KIND PORT: all of the 16 partitions on the one device.
swift_ring() {
  local builder="$1/$2.builder" log="$1/ring-$2.log"
  swift_ring_builder "$log" "$builder" create 4 1 0
  swift_ring_builder "$log" "$builder" add "r1z1-127.0.0.1:$3/d1" 1
  swift_ring_builder "$log" "$builder" rebalance
  [ -s "$1/$2.ring.gz" ]
}

# What the command swift-ring-builder does; its package would bring system services. It ends with 1 for a mere remark.
swift_ring_builder() {
  local log=$1 status=0
  shift
  /usr/bin/python3 -c 'import sys; from swift.cli.ringbuilder import main; main(["swift-ring-builder", *sys.argv[1:]])' "$@" >>"$log" 2>&1 || status=$?
  [ "$status" -le 1 ]
}

# Settings of every server. workers = 0: no forks, so that one process id is the whole server.
swift_common() {
  cat <<CONF
[DEFAULT]
swift_dir = $1
devices = $1/devices
mount_check = false
bind_ip = 127.0.0.1
bind_port = $2
user = $(id -un)
workers = 0
fallocate_reserve = 0
log_level = WARNING
log_requests = false
CONF
}

swift_storage_server() {
  {
    swift_common "$1" "$3"
    cat <<CONF
recon_cache_path = $1/cache

[pipeline:main]
pipeline = $2-server

[app:$2-server]
use = egg:swift#$2
CONF
  } >"$1/$2.conf"
}

swift_proxy_server() {
  {
    swift_common "$1" "$2"
    cat <<CONF

[pipeline:main]
pipeline = catch_errors gatekeeper healthcheck cache listing_formats s3api tempauth copy slo dlo symlink versioned_writes proxy-server

[app:proxy-server]
use = egg:swift#proxy
allow_account_management = true
account_autocreate = true

[filter:catch_errors]
use = egg:swift#catch_errors
[filter:gatekeeper]
use = egg:swift#gatekeeper
[filter:healthcheck]
use = egg:swift#healthcheck
[filter:cache]
use = egg:swift#memcache
memcache_servers = 127.0.0.1:$3
[filter:listing_formats]
use = egg:swift#listing_formats
[filter:s3api]
use = egg:swift#s3api
location = us-east-1
storage_domain = s3.test
[filter:tempauth]
use = egg:swift#tempauth
user_test_tester = testing .admin
[filter:copy]
use = egg:swift#copy
[filter:slo]
use = egg:swift#slo
[filter:dlo]
use = egg:swift#dlo
[filter:symlink]
use = egg:swift#symlink
[filter:versioned_writes]
use = egg:swift#versioned_writes
allow_object_versioning = true
CONF
  } >"$1/proxy.conf"
}
