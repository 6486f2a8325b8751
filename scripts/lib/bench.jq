# From the samples of scripts/bench to its report: what was measured, ratios, targets, tables.
#
# A sample is {"setup", "figure", "round", "value"}. summary($conditions; $detection) makes the report of an
# array of samples; the other definitions turn a report into lines for people.

def median:
  sort | if length == 0 then null elif length % 2 == 1 then .[length / 2 | floor]
    else (.[length / 2 - 1] + .[length / 2]) / 2 end;

def round_to($places): if . == null then null else pow(10; $places) as $p | (. * $p | round) / $p end;

def figures: {
  echo_p50_us: "echo p50, us", echo_p99_us: "echo p99, us",
  bulk_in_mbit_s: "bulk in, Mbit/s", bulk_out_mbit_s: "bulk out, Mbit/s"
};

def setups: {
  kernel: "kernel to kernel", overlap: "replicated, overlap", strict: "replicated, strict",
  haproxy: "relayed by HAProxy"
};

# What must hold; "value" is compared with "limit" as "sense" says. A figure without a value is a miss.
def targets($detection):
  [
    { target: "overlap: echo p50, times kernel to kernel", sense: "at most", limit: 3.0,
      value: .steady.overlap.echo_p50_us.ratio },
    { target: "overlap: bulk in, times kernel to kernel", sense: "at least", limit: 0.25,
      value: .steady.overlap.bulk_in_mbit_s.ratio },
    { target: "overlap: bulk out, times kernel to kernel", sense: "at least", limit: 0.25,
      value: .steady.overlap.bulk_out_mbit_s.ratio },
    { target: "planned switchover: longest gap, ms", sense: "at most", limit: 50,
      value: .gaps.planned.median },
    { target: "primary killed: longest gap, ms", sense: "at most", limit: ($detection + 100),
      value: .gaps.killed.median }
  ]
  | map(. + { met: (.value != null
      and (if .sense == "at most" then .value <= .limit else .value >= .limit end)) });

def summary($conditions; $detection):
  def spread: map(.value) | { median: (median | round_to(1)), min: min, max: max, samples: . };
  def of($setup; $figure): map(select(.setup == $setup and .figure == $figure));
  . as $samples
  | { conditions: $conditions, detection_ms: $detection,
      steady: (setups | with_entries(.key as $setup | .value = (figures | with_entries(
        .key as $figure
        | ($samples | of("kernel"; $figure) | map(.value) | median) as $base
        | ($samples | of($setup; $figure)) as $own
        | .value = ($own | spread)
          + { ratio: (if $base then ($own | map(.value) | median) / $base | round_to(2) else null end) })))),
      # Connections that went on without replication and were measured anew.
      not_replicated: (["overlap", "strict"] | map({
        key: ., value: (. as $setup | $samples | of($setup; "not_replicated") | length) }) | from_entries),
      gaps: (["undisturbed", "planned", "killed"] | map({
        key: ., value: (. as $kind | $samples | of($kind; "longest_gap_ms") | spread) }) | from_entries) }
  | .targets = targets($detection)
  | .met = all(.targets[]; .met);

def steady_rows:
  . as $report
  | setups | to_entries[] | .key as $setup
  | [.value] + (figures | keys_unsorted | map($report.steady[$setup][.] as $f
      | ($f.median | round | tostring) + " (" + ($f.ratio | tostring) + ")"))
  | @tsv;

def steady_spread_rows:
  . as $report
  | setups | to_entries[] | .key as $setup
  | [.value] + (figures | keys_unsorted | map($report.steady[$setup][.] as $f
      | ($f.min | round | tostring) + ".." + ($f.max | round | tostring)))
  | @tsv;

def not_replicated_lines:
  .not_replicated | to_entries[] | select(.value > 0)
  | "\(.key): \(.value) connections were not replicated to their end, and measured anew";

def gap_rows:
  { undisturbed: "no switchover at all", planned: "planned switchover", killed: "primary killed" } as $names
  | .gaps | to_entries[] | [$names[.key], .value.median, .value.min, .value.max, (.value.samples | length)]
  | @tsv;

def target_rows:
  .targets[] | [(if .met then "met" else "MISSED" end), .target, .sense, .limit, .value // "no value"] | @tsv;

# The tables of docs/performance.md.
def markdown:
  . as $report
  | "| | " + (figures | map(.) | join(" | ")) + " |",
    "|---|" + (figures | map("---:|") | add),
    (setups | to_entries[] | .key as $setup
      | "| " + .value + " | " + (figures | keys_unsorted | map($report.steady[$setup][.] as $f
          | "\($f.median | round) (\($f.min | round)–\($f.max | round)), ×\($f.ratio)") | join(" | ")) + " |"),
    "",
    "| longest gap, ms | median | least | most | runs |",
    "|---|---:|---:|---:|---:|",
    (gap_rows | "| " + (split("\t") | join(" | ")) + " |");
