# shellcheck shell=bash
# Debian packages that building, testing and the demonstration need.

# install_missing PACKAGE... installs what is not installed, and touches nothing if all is.
install_missing() {
  local package missing=()
  for package in "$@"; do
    [[ $(dpkg-query -W -f '${db:Status-Status}' "$package" 2>/dev/null) == installed ]] || missing+=("$package")
  done
  [[ ${#missing[@]} -gt 0 ]] || return 0
  if [[ $EUID -ne 0 ]]; then
    echo "missing packages: ${missing[*]}; run this as root, or install them with apt-get" >&2
    return 77
  fi
  echo "installing ${missing[*]}"
  local log
  log=$(mktemp)
  # The package lists of a fresh machine may be empty or old.
  if ! DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends "${missing[@]}" >"$log" 2>&1; then
    if ! { apt-get update && DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends \
      "${missing[@]}"; } >"$log" 2>&1; then
      tail -n 20 "$log" >&2
      rm -f "$log"
      echo "these packages could not be installed: ${missing[*]}" >&2
      return 69
    fi
  fi
  rm -f "$log"
}
