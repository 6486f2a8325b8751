# shellcheck shell=bash
# Building with SwiftPM: progress in few lines, errors in full, warnings in our own code as errors.

# own_session COMMAND... becomes the command, in a session of its own. The kernel gives each session a share of the
# processors of its own (sched_autogroup_enabled, sched(7)), whatever the priority of what runs in it: with JSR_ASIDE=1
# that share is the smallest.
own_session() {
  [[ ${JSR_ASIDE:-0} == 1 ]] || exec setsid "$@"
  # shellcheck disable=SC2016
  exec setsid bash -c 'echo 19 2>/dev/null >/proc/self/autogroup || true; exec "$@"' - "$@"
}


# build NAME ARGUMENT... runs swift build with the arguments, from the root of the package.
# NAME says in the progress what is built. The build runs in the background, so that a signal to the script
# is acted on at once, and in a session of its own, so that it can be ended with all its compilers:
# build_pid is its process, and its process group, while it runs.
build_pid=
build() {
  local name=$1 log=.build/$1.log started=$SECONDS status=0
  shift
  mkdir -p .build
  echo "== building $name"
  own_session swift build "$@" >"$log" 2>&1 &
  build_pid=$!
  local next=15
  while kill -0 "$build_pid" 2>/dev/null; do
    sleep 0.5
    if ((SECONDS - started >= next)); then
      next=$((next + 15))
      echo "   $((SECONDS - started)) s: $(grep -E '^\[' "$log" | tail -n 1 | cut -c 1-90)"
    fi
  done
  wait "$build_pid" || status=$?
  build_pid=
  if [[ $status -ne 0 ]]; then
    { grep -E 'error:' "$log" | sort -u | head -n 40; tail -n 15 "$log"; } >&2
    echo "building $name failed; all of it is in $log" >&2
    return 1
  fi
  local warnings
  warnings=$(grep -E "^$PWD/(Sources|Tests|Fuzz|Benchmarks|Package\.swift).*warning:" "$log" | sort -u || true)
  if [[ -n $warnings ]]; then
    head -n 40 <<<"$warnings" >&2
    # A file that is not compiled again would not repeat its warnings in the next run.
    cut -d : -f 1 <<<"$warnings" | sort -u | xargs -r touch -c
    echo "building $name gave warnings, which count as errors" >&2
    return 1
  fi
  echo "   done in $((SECONDS - started)) s"
}

# Whoever has built all of the package for release says so with JSR_RELEASE_IS_BUILT=1: to find that nothing is left to do
# takes some seconds for each product.

# build_library builds libjsr.so for release. bin is where it is.
build_library() {
  [[ ${JSR_RELEASE_IS_BUILT:-0} == 1 ]] || build release-libjsr -c release --product jsr
  # shellcheck disable=SC2034
  bin=$(swift build -c release --show-bin-path)
}

# build_programs builds the programs for release, and nothing that only others need. bin is where they are.
bin=
build_programs() {
  local program
  if [[ ${JSR_RELEASE_IS_BUILT:-0} != 1 ]]; then
    for program in jsrd jsrctl jsrutil jsrpeer jsrutil_mini jsrpeer_mini; do
      build "release-$program" -c release --product "$program"
    done
  fi
  # Used by the scripts that source this file.
  # shellcheck disable=SC2034
  bin=$(swift build -c release --show-bin-path)
}
