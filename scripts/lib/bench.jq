# From the samples of scripts/bench to its report: what was measured, ratios, targets, tables.
#
# A sample is {"setup", "figure", "round", "value"}. summary($conditions; $detection) makes the report of an
# array of samples; the other definitions turn a report into lines for people.

def median:
  sort | if length == 0 then null elif length % 2 == 1 then .[length / 2 | floor]
    else (.[length / 2 - 1] + .[length / 2]) / 2 end;

def round_to($places): if . == null then null else pow(10; $places) as $p | (. * $p | round) / $p end;

def setups: {
  kernel: "kernel to kernel", beside: "beside the engine", overlap: "replicated, overlap",
  strict: "replicated, strict", haproxy: "relayed by HAProxy"
};

def connections: if . == "1" then "1 connection" else "\(.) connections" end;

# The name of a figure for people, with its unit.
def title:
  def matched($pattern; value): capture($pattern) | value;
  matched("^echo_(?<bytes>.*)_(?<n>.*)_(?<p>p.*)$";
    "echo \(.p | sub("p999"; "p99.9")), \(.bytes) bytes, \(.n | connections), us")
  // matched("^bulk_(?<way>.*)_(?<n>.*)$"; "bulk \(.way), \(.n | connections), Mbit/s")
  // matched("^time_per_gigabyte_(?<way>.*)_(?<node>.*)$"; "processor time per GB \(.way), \(.node), s")
  // matched("^time_per_million_messages_(?<node>.*)$"; "processor time per million messages, \(.node), s")
  // matched("^gap_planned_(?<n>[0-9]*)$"; "planned switchover, \(.n | connections), longest gap, ms")
  // matched("^gap_killed_(?<n>[0-9]*)$"; "primary killed, \(.n | connections), longest gap, ms")
  // matched("^gap_(?<kind>.*)_(?<n>[0-9]*)_each$"; "\(.kind), \(.n | connections), median of theirs, ms")
  // matched("^merge_us_(?<n>.*)$"; "a merge, one of \(.n), us")
  // matched("^restore_us_(?<n>.*)$"; "of that, to rebuild the connection, one of \(.n), us")
  // matched("^replicated_per_second_(?<n>.*)$"; "replicated per second, of \(.n)")
  // matched("^memory_per_socket_(?<n>.*)_(?<role>.*)$"; "memory per socket, of \(.n), \(.role), bytes")
  // { message_rate: "messages per second, 312 bytes, 100 connections",
       beside_echo: "not replicated, one lab: echo p50, 312 bytes, 1 connection, us",
       beside_in: "not replicated, one lab: bulk in, 1 connection, Mbit/s",
       beside_out: "not replicated, one lab: bulk out, 1 connection, Mbit/s",
       restore_alone_us: "to rebuild one of 1000 connections, with nothing else to do, us",
       soccr_alone_us: "the same by libsoccr, us" }[.] // .;

# What must hold; "value" is compared with "limit" as "sense" says. A figure without a value is a miss.
def targets:
  . as $report
  | def of($figure; $setup): $report.figures[$figure][$setup];
    def ratio($figure): of($figure; "overlap").ratio;
    def to_haproxy($figure):
      of($figure; "overlap").median as $own | of($figure; "haproxy").median as $other
      | if $own and $other then $own / $other | round_to(2) else null end;
    def at_most($target; $limit; $value): { $target, sense: "at most", $limit, $value };
    def at_least($target; $limit; $value): { $target, sense: "at least", $limit, $value };
    def measured($n): $report.conditions.sizes | any(. == $n);
    ($report.conditions.sizes | max) as $most
    | def growth($figure):
      of($figure | sub("N"; "1000"); "overlap").median as $few | of($figure | sub("N"; "\($most)"); "overlap").median as $many
      | if $few and $many then ([$many / $few, $few / $many] | max) | round_to(2) else null end;
    [
      at_most("echo p50, 312 bytes, 1 connection, times kernel to kernel"; 2.2; ratio("echo_312_1_p50")),
      at_most("the same, times HAProxy"; 1.4; to_haproxy("echo_312_1_p50")),
      at_most("echo p99, times kernel to kernel"; 3; ratio("echo_312_1_p99")),
      (["in", "out"][]
        | at_least("bulk \(.), 1 connection, times kernel to kernel"; 0.4; ratio("bulk_\(.)_1")),
          at_least("the same, times HAProxy"; 0.8; to_haproxy("bulk_\(.)_1"))),
      at_least("messages per second, 100 connections, times kernel to kernel"; 0.4; ratio("message_rate")),
      (["in", "out"][]
        | at_least("not replicated, with engines running: bulk \(.), times without"; 0.98;
            of("beside_\(.)"; "beside").ratio)),
      ([[1, 20], [1000, 150], [10000, 1000]][] | select(measured(.[0]))
        | at_most("primary killed, \(.[0]) connections, gap beyond detection, ms"; .[1];
            of("gap_killed_\(.[0])"; "overlap").median | if . then . - $report.detection_ms else null end)),
      ([[1, 10], [1000, 100]][] | select(measured(.[0]))
        | at_most("planned switchover, \(.[0]) connections, longest gap, ms"; .[1];
            of("gap_planned_\(.[0])"; "overlap").median)),
      (select(measured(1000))
        | at_least("sockets replicated per second"; 2000; of("replicated_per_second_1000"; "overlap").median),
          (["primary", "secondary"][]
            | at_most("memory per idle socket on the \(.), bytes"; 4096;
                of("memory_per_socket_1000_\(.)"; "overlap").median))),
      (of("soccr_alone_us"; "overlap").median as $soccr | select($soccr)
        | at_most("to rebuild a connection, times libsoccr"; 1;
            of("restore_alone_us"; "overlap").median | if . then . / $soccr else null end)),
      (select($most > 1000)
        | (["replicated_per_second_N", "memory_per_socket_N_primary", "memory_per_socket_N_secondary",
            "merge_us_N"][]
          | at_most("growth from 1,000 to \($most), each: \(.)"; 1.2; growth(.))))
    ]
    | map(.value |= round_to(2))
    | map(. + { met: (.value != null
        and (if .sense == "at most" then .value <= .limit else .value >= .limit end)) });

def summary($conditions; $detection):
  def spread: map(.value) | { median: (median | round_to(2)), min: min, max: max, samples: . };
  . as $samples
  | (reduce ($samples[] | .figure) as $f ([]; if any(.[]; . == $f) then . else . + [$f] end)
      | map(select(. != "not_replicated"))) as $names
  | { $conditions, detection_ms: $detection,
      figures: ($names | map({ key: ., value: (. as $figure
        | ($samples | map(select(.figure == $figure))) as $all
        | ($all | map(select(.setup == "kernel") | .value) | median) as $base
        | setups | with_entries(.key as $setup | .value = ($all | map(select(.setup == $setup))))
        | with_entries(select(.value | length > 0))
        | map_values((map(.value) | median) as $own | spread
            + { ratio: (if $base and $base > 0 then $own / $base | round_to(2) else null end) })) }) | from_entries),
      # Connections that went on without replication and were measured anew.
      not_replicated: (["overlap", "strict"] | map({ key: ., value: (. as $setup | $samples
        | map(select(.setup == $setup and .figure == "not_replicated")) | length) }) | from_entries) }
  | .targets = targets
  | .met = all(.targets[]; .met);

def number: if . == null then "" elif . >= 100 then round | tostring else round_to(1) | tostring end;

def headings: setups[];

def rows:
  .figures | to_entries[] | .value as $cells
  | [(.key | title)]
    + (setups | keys_unsorted | map($cells[.] | if . == null then "-" else
        (.median | number) + (if .ratio then " (\(.ratio))" else "" end) end))
  | @tsv;

def not_replicated_lines:
  .not_replicated | to_entries[] | select(.value > 0)
  | "\(.key): \(.value) connections were not replicated to their end, and measured anew";

def target_rows:
  .targets[] | [(if .met then "met" else "MISSED" end), .target, .sense, .limit, .value // "no value"] | @tsv;

# The tables of docs/performance.md.
def markdown:
  . as $report
  | "| | " + ([setups[]] | join(" | ")) + " |", "|---|" + ([setups[] | "---:|"] | add),
    (.figures | to_entries[] | select(.value.kernel) | .value as $cells
      | "| \(.key | title) | " + (setups | keys_unsorted | map($cells[.] | if . == null then "" else
          "\(.median | number) (\(.min | number)–\(.max | number)), ×\(.ratio)" end) | join(" | ")) + " |"),
    "",
    "| replicated, overlap | median | least | most |", "|---|---:|---:|---:|",
    (.figures | to_entries[] | select(.value.kernel | not) | .value.overlap as $cell | select($cell)
      | "| \(.key | title) | \($cell.median | number) | \($cell.min | number) | \($cell.max | number) |"),
    "",
    "| target | wanted | measured | |", "|---|---:|---:|---|",
    (.targets[] | "| \(.target) | \(.sense) \(.limit) | \(.value // "no value") | \(if .met then "met" else "missed" end) |");

# What scripts/lib/bars.awk draws: group, series, value.
def bars($picture):
  .figures as $figures
  | if $picture == "gaps" then
      (["planned", "killed"][] as $kind | ["", "_each"][] as $each
        | ($figures | keys_unsorted[] | select(test("^gap_\($kind)_[0-9]+\($each)$"))) as $name
        | [($name | capture("_(?<n>[0-9]+)") | .n | connections),
            ({ planned: "planned switchover", killed: "primary killed" }[$kind]
              + (if $each == "" then ", longest" else ", median of theirs" end)),
            $figures[$name].overlap.median])
    else
      (($figures | keys_unsorted[]
        | select(if $picture == "echo" then test("^echo_312_.*_p50$") else test("^bulk_") end)) as $name
        | setups | to_entries[] | . as $setup | $figures[$name][.key] | select(.)
        | [($name | title | sub(", [^,]*$"; "")), $setup.value, .median])
    end
  | @tsv;

def unit($picture): { echo: "us", bulk: "Mbit/s", gaps: "ms" }[$picture];
