# What the scripts beside this one share; sourced.

# reserve_pages COUNT: so many free 2 MiB pages, which takes root.
reserve_pages() {
  local free total
  free=$(awk '/HugePages_Free/ { print $2 }' /proc/meminfo)
  total=$(awk '/HugePages_Total/ { print $2 }' /proc/meminfo)
  if [ "$free" -lt "$1" ]; then
    echo $((total + $1 - free)) > /proc/sys/vm/nr_hugepages || { echo "no huge pages: run as root" >&2; exit 1; }
  fi
}

# need PROGRAM...: that all of them are installed.
need() {
  local program
  for program in "$@"; do
    command -v "$program" > /dev/null || { echo "$program is not installed: run ${BASH_SOURCE%/*}/install.sh" >&2; exit 1; }
  done
}

# version PACKAGE: of a Debian package.
version() { dpkg-query -W -f '${Version}' "$1" 2> /dev/null || echo "not installed"; }
