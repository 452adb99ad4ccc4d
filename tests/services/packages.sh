# shellcheck shell=bash
# Debian packages: installs what is missing, and keeps apt from starting any service of theirs.

as_root=()
policy=/usr/sbin/policy-rc.d
made_policy=

# install_packages NAME...
install_packages() {
  local missing=() name
  for name in "$@"; do
    dpkg-query -W -f '${db:Status-Status}' "$name" 2>/dev/null | grep -qx installed || missing+=("$name")
  done
  [ "${#missing[@]}" -eq 0 ] && return 0

  if [ "$(id -u)" -ne 0 ]; then
    if ! command -v sudo >/dev/null || ! sudo -n true 2>/dev/null; then
      echo "services: these Debian packages are missing: ${missing[*]}" >&2
      echo "services: run this as root or with sudo, or install them first: apt-get install ${missing[*]}" >&2
      return 1
    fi
    as_root=(sudo -n)
  fi
  if ! command -v apt-get >/dev/null; then
    echo "services: needs a Debian or Ubuntu with apt, for ${missing[*]}" >&2
    return 1
  fi

  echo "services: installing ${missing[*]}"
  local log
  log=$(mktemp)
  forbid_services
  local status=0
  apt_quietly update >"$log" 2>&1 &&
    apt_quietly install -y --no-install-recommends "${missing[@]}" >>"$log" 2>&1 || status=$?
  allow_services
  if [ "$status" -ne 0 ]; then
    echo "services: apt-get failed:" >&2
    tail -n 30 "$log" >&2
  fi
  rm -f "$log"
  return "$status"
}

# Packages ask this file whether they may start their services (Debian Policy 9.3.3.1). One that exists is respected.
forbid_services() {
  [ ! -e "$policy" ] || return 0
  made_policy=yes
  printf '#!/bin/sh\nexit 101\n' | "${as_root[@]}" tee "$policy" >/dev/null
  "${as_root[@]}" chmod 755 "$policy"
}

# Takes back what forbid_services did, if it did anything.
allow_services() {
  [ -z "$made_policy" ] || "${as_root[@]}" rm -f "$policy"
  made_policy=
}

# Waits for another apt rather than failing at once.
apt_quietly() {
  timeout --kill-after=20 600 "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive \
    apt-get -q -o DPkg::Lock::Timeout=120 -o Acquire::Retries=3 "$@" </dev/null
}
