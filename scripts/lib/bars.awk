# Draws lines of group, series and value, separated by tabs, as an SVG picture of bars.

BEGIN {
  FS = "\t"
  split("#888 #bbb #1f77b4 #ff7f0e #2ca02c", colour, " ")
}

NF == 3 {
  if (!($1 in size)) group[++groups] = $1
  if (!($2 in number)) { series[++kinds] = $2; number[$2] = kinds }
  label[$1, ++size[$1]] = $2
  value[$1, size[$1]] = $3
  if ($3 > most) most = $3
  bars++
}

END {
  left = 230
  inner = 420
  height = bars * 15 + groups * 12 + kinds * 15 + 30
  printf "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"%d\" height=\"%d\" ", left + inner + 90, height
  print "font-family=\"sans-serif\" font-size=\"11\">"
  print "<rect width=\"100%\" height=\"100%\" fill=\"white\"/>"
  y = 18
  for (i = 1; i <= groups; i++) {
    printf "<text x=\"%d\" y=\"%d\" text-anchor=\"end\">%s</text>\n", left - 8, y + 10, group[i]
    for (j = 1; j <= size[group[i]]; j++) {
      printf "<rect x=\"%d\" y=\"%d\" width=\"%.1f\" height=\"12\" fill=\"%s\"/>\n", left, y, \
        most ? value[group[i], j] / most * inner : 0, colour[(number[label[group[i], j]] - 1) % 5 + 1]
      printf "<text x=\"%.1f\" y=\"%d\" fill=\"#555\">%.0f %s</text>\n", \
        left + 5 + (most ? value[group[i], j] / most * inner : 0), y + 10, value[group[i], j], unit
      y += 15
    }
    y += 12
  }
  for (i = 1; i <= kinds; i++) {
    printf "<rect x=\"%d\" y=\"%d\" width=\"12\" height=\"12\" fill=\"%s\"/>\n", left, y, colour[(i - 1) % 5 + 1]
    printf "<text x=\"%d\" y=\"%d\">%s</text>\n", left + 18, y + 10, series[i]
    y += 15
  }
  print "</svg>"
}
