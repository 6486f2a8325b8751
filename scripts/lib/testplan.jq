# What became of the cases of docs/testplan.md in a run of the tests: joins the rows of the document with the test
# runner's event stream (swift test --event-stream-output-path, version 0).

# The rows of the document's tables whose first cell is the number of a case. Tests are named in back quotes:
# Module/Suite/function.
def cases:
  [split("\n")[] | select(test("^\\| *[0-9]+(\\.[0-9]+)* *\\|")) | ltrimstr("|") | rtrimstr("|") | split("|") |
   map(gsub("^ +| +$"; "")) |
   if length != 4 then error("docs/testplan.md: case \(.[0]) has \(length) cells, not 4") else . end |
   {case: .[0], title: .[1], tests: [.[3] | scan("`([^`]+)`") | .[0]]}];

# LabTests.LabSuite/Handles/state()/Handles.swift:134:6 is LabTests/Handles/state in the document.
def short_name:
  sub("\\(.*$"; "") | sub("/[^/]*\\.swift:[0-9]+:[0-9]+$"; "") | sub("\\."; "/") | sub("^LabTests/LabSuite/"; "LabTests/");

def rounded: . * 10 | round / 10;

# By short name: what is known of each test function, and how it ended.
def tests:
  . as $records |
  (reduce ($records[] | select(.kind == "event").payload | select(.testID != null)) as $event ({};
    ($event.testID) as $id |
    if $event.kind == "testStarted" then .[$id].started = $event.instant.absolute
    elif $event.kind == "testEnded" then
      .[$id].seconds = ($event.instant.absolute - (.[$id].started // $event.instant.absolute)) |
      .[$id].symbol = ([$event.messages[].symbol] | if index("fail") then "fail" else "pass" end)
    elif $event.kind == "testSkipped" then .[$id].skipped = true
    else . end)) as $ends |
  reduce ($records[] | select(.kind == "test").payload | select(.kind == "function")) as $test ({};
    ($ends[$test.id] // {}) as $outcome |
    .[$test.id | short_name] = {
      name: ($test.id | short_name),
      display_name: ($test.displayName // $test.name),
      arguments: [$test._testCases // [] | .[].displayName],
      result: (
        if $outcome.skipped then "skipped"
        elif $outcome.symbol == "fail" then "failed"
        elif $outcome.symbol == "pass" then "passed"
        # The run ended in the middle of it.
        elif $outcome.started then "failed"
        else "not run" end),
      seconds: ($outcome.seconds // 0 | rounded)
    });

def result_of($found):
  if length == 0 then "not yet"
  elif any($found[]; .result == "failed") then "failed"
  elif any($found[]; .result == "not run") then "not run"
  elif any($found[]; .result == "skipped") then "skipped"
  else "passed" end;

# The numbers at the beginning of a display name: "3.1", "5.1.6".
def number: capture("^(?<number>[0-9]+\\.[0-9]+(\\.[0-9]+)?)\\b").number // null;

def report($document; $partial):
  tests as $tests | ($document | cases) as $cases |
  ([$cases[] | .case as $case | .tests[] | select($tests[.] == null) |
    "docs/testplan.md: case \($case) names \(.), and there is no such test"] | if $partial then [] else . end) as $missing |
  ([$tests[] | . as $test | (.display_name | try number catch null) as $number | select($number != null) |
    select(all($cases[]; .case != $number or all(.tests[]; . != $test.name))) |
    "docs/testplan.md: case \($number) does not name \($test.name), whose title begins with that number"]) as $unnamed |
  ([$cases | group_by(.case)[] | select(length > 1) | "docs/testplan.md: case \(.[0].case) is there twice"]) as $twice |
  [$cases[] |
    [.tests[] | . as $name | $tests[$name] // {name: $name, display_name: "", arguments: [], result: "not run", seconds: 0}]
      as $found |
    {case, title, result: (.tests | result_of($found)), seconds: ([$found[].seconds] | add // 0 | rounded), tests: $found}]
    as $rows |
  {
    complaints: ($missing + $unnamed + $twice + (if $cases == [] then ["docs/testplan.md has no cases"] else [] end)),
    summary: (reduce ("passed", "failed", "skipped", "not run", "not yet") as $result ({};
      .[$result] = ([$rows[] | select(.result == $result)] | length))),
    cases: $rows
  };

def summary_line:
  .summary as $of |
  "\($of.passed) of \(.cases | length) cases passed" +
  ([("failed", "skipped", "not run", "not yet") | select($of[.] > 0) | ", \($of[.]) \(.)"] | add // "");

def markdown($date):
  "# Results of the test plan", "",
  "\($date): \(summary_line). What is done in each case is in docs/testplan.md.", "",
  "| case | title | result | seconds | tests |", "|---|---|---|---|---|",
  (.cases[] | "| \(.case) | \(.title) | \(if .result == "failed" then "**failed**" else .result end) | " +
    "\(if .tests == [] then "" else .seconds end) | " +
    ([.tests[] | "`\(.name)`" + (if (.arguments | length) > 1 then " (\(.arguments | length) times)" else "" end) +
      (if .result == "passed" then "" else ": \(.result)" end)] | join(", ")) + " |");
