# Draws a table of samples, as scripts/soak writes it, as an SVG picture: one small diagram a column.

BEGIN {
  FS = ","
  width = 360
  height = 120
  across = 3
  left = 12
  top = 26
}

NR == 1 {
  columns = NF
  for (i = 2; i <= NF; i++) name[i] = $i
  next
}

NF == columns {
  samples++
  time[samples] = $1
  for (i = 2; i <= columns; i++) {
    value[samples, i] = $i
    if (samples == 1 || $i > most[i]) most[i] = $i + 0
    if (samples == 1 || $i < least[i]) least[i] = $i + 0
  }
}

END {
  rows = int((columns - 2) / across) + 1
  printf "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"%d\" height=\"%d\" ", across * width, rows * height
  print "font-family=\"sans-serif\" font-size=\"10\">"
  print "<rect width=\"100%\" height=\"100%\" fill=\"white\"/>"
  # A long run has more samples than a diagram has dots.
  step = int(samples / (2 * width)) + 1
  last = samples ? time[samples] : 0
  for (i = 2; i <= columns; i++) {
    x = ((i - 2) % across) * width + left
    y = int((i - 2) / across) * height + top
    inner = width - 2 * left
    tall = height - top - 14
    range = most[i] - least[i]
    printf "<text x=\"%d\" y=\"%d\">%s: %.0f to %.0f</text>\n", x, y - 8, name[i], least[i], most[i]
    printf "<rect x=\"%d\" y=\"%d\" width=\"%d\" height=\"%d\" fill=\"none\" stroke=\"#ccc\"/>\n", x, y, inner, tall
    printf "<polyline fill=\"none\" stroke=\"#1f77b4\" points=\""
    for (j = 1; j <= samples; j += step)
      printf "%.1f,%.1f ", x + (last ? time[j] / last : 0) * inner,
        y + tall - (range ? (value[j, i] - least[i]) / range : 0.5) * tall
    print "\"/>"
    printf "<text x=\"%d\" y=\"%d\" text-anchor=\"end\" fill=\"#777\">%d s</text>\n", x + inner, y + tall + 11, last
  }
  print "</svg>"
}
