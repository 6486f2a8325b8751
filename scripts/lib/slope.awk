# Judges a table of samples, as scripts/soak writes it: fails on what grows.
#
# The first line names the columns, the first column is the time in seconds. Over the second half of the lines, the
# straight line that fits each column best (least squares) may not rise by more than the limit of its column; the
# first half is left for buffers and caches to reach their size. Limits are by the end of a column's name; a column
# without one is a count, which may grow.

BEGIN {
  FS = ","
  limit["_rss_kb"] = 4096
  # A pair takes some on the secondary, and pairs come and go.
  limit["_fds"] = 50
  # Of the whole machine, so that others may be seen in it.
  limit["slab_unreclaimable_kb"] = 65536
  limit["_sockets"] = 50
  limit["_flows"] = 100
  limit["_snoop_pairs"] = 50
  limit["_stored_frames"] = 200
  limit["_held_bytes"] = 4194304
  limit["_buffered_bytes"] = 4194304
  least = 10
}

function complain(text) {
  print "soak: " text > "/dev/stderr"
  broken = 1
  exit 2
}

NR == 1 {
  columns = NF
  if (columns < 2 || $1 != "seconds") complain(FILENAME ":1: not a table of samples: its first column must be seconds")
  for (i = 2; i <= columns; i++) name[i] = $i
  next
}

{
  if (NF != columns) complain(FILENAME ":" NR ": " NF " columns where the first line has " columns)
  for (i = 1; i <= columns; i++) {
    if ($i !~ /^-?[0-9]+(\.[0-9]+)?$/) complain(FILENAME ":" NR ": " (i == 1 ? "seconds" : name[i]) " is not a number: " $i)
    value[NR - 1, i] = $i
  }
}

END {
  if (broken) exit 2
  samples = NR - 1
  if (samples < least) complain(FILENAME ": " (samples < 0 ? 0 : samples) " samples say nothing, " least " are needed")
  first = int(samples / 2) + 1
  count = samples - first + 1
  span = value[samples, 1] - value[first, 1]
  if (span <= 0) complain(FILENAME ": the time of the second half does not pass")
  printf "second half: %d samples in %d s\n", count, span
  printf "%-32s %14s %14s %14s\n", "", "last", "grew by", "limit"
  for (i = 2; i <= columns; i++) {
    allowed = ""
    for (suffix in limit)
      if (substr(name[i], length(name[i]) - length(suffix) + 1) == suffix) allowed = limit[suffix]
    if (allowed == "") continue
    judged++
    meanTime = meanValue = above = below = 0
    for (j = first; j <= samples; j++) {
      meanTime += value[j, 1] / count
      meanValue += value[j, i] / count
    }
    for (j = first; j <= samples; j++) {
      above += (value[j, 1] - meanTime) * (value[j, i] - meanValue)
      below += (value[j, 1] - meanTime) ^ 2
    }
    growth = above / below * span
    verdict = growth > allowed ? "GROWS" : ""
    if (growth > allowed) grown++
    printf "%-32s %14d %14.1f %14d  %s\n", name[i], value[samples, i], growth, allowed, verdict
  }
  if (!judged) complain(FILENAME ": no column of it has a limit")
  if (grown) {
    print "soak: " grown " of " judged " columns grow" > "/dev/stderr"
    exit 1
  }
}
