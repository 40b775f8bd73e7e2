# Tables of what benches/compare.sh measured: lines of case, round, contestant, Mpps, Gbit/s, % lost, % empty turns, busy
# cycles a packet, ns between cores before and after.
{
  if (!(($1, "ours") in seen) && $3 == "ours") order[++cases] = $1
  if (!(($1, $3) in seen)) contestants[$1] = contestants[$1] " " $3
  seen[$1, $3] = 1
  if ($2 > rounds[$1]) rounds[$1] = $2
  for (c = 4; c <= 8; c++) value[$1, $3, $2, c] = $c
  there[$1, $3, $2] = $4 > 0
  for (c = 9; c <= 10; c++) { if (!low[$1] || $c < low[$1]) low[$1] = $c; if ($c > high[$1]) high[$1] = $c }
}
function sort(i, j, t) { for (i = 2; i <= n; i++) for (j = i; j > 1 && list[j-1] > list[j]; j--) { t = list[j]; list[j] = list[j-1]; list[j-1] = t } }
function median() { return n % 2 ? list[(n+1)/2] : (list[n/2] + list[n/2+1]) / 2 }
# Puts a column, or the ratio of ours to a contestant's of the same round, into list.
function column(what, name, c, r) { n = 0; for (r = 1; r <= rounds[what]; r++) if (there[what, name, r]) list[++n] = value[what, name, r, c] + 0; sort() }
function pairs(what, name, c, r, d) {
  n = 0
  for (r = 1; r <= rounds[what]; r++) { d = value[what, name, r, c]; if (there[what, name, r] && there[what, "ours", r] && d > 0) list[++n] = value[what, "ours", r, c] / d }
  sort()
}
function figure(what, name, c) { column(what, name, c); return n ? sprintf("%.1f (%.1f–%.1f)", median(), list[1], list[n]) : "–" }
function ratio(what, name, c) { pairs(what, name, c); return n ? sprintf("%.2f (%.2f–%.2f)", median(), list[1], list[n]) : "–" }
function middle(what, name, c, format) { column(what, name, c); return n && median() > 0 ? sprintf(format, median()) : "–" }
END {
  print "\n| case | unit | chainplane: median (lowest–highest) | busy cycles a packet | lost | driver's empty turns | rounds | line between cores, ns |"
  print "| --- | --- | --- | --- | --- | --- | --- | --- |"
  for (i = 1; i <= cases; i++) {
    what = order[i]; c = what ~ /^large/ ? 5 : 4
    column(what, "ours", 6); lost = n ? list[n] : 0; column(what, "ours", 7); empty = n ? median() : 0
    printf "| %s | %s | %s | %s | %.1f %% | %.0f %% | %d | %d–%d |\n", what, c == 5 ? "Gbit/s" : "Mpps", figure(what, "ours", c), middle(what, "ours", 8, "%.0f"), lost, empty, rounds[what], low[what], high[what]
  }
  print "\n| case | against | its median (lowest–highest) | its busy cycles | its lost | **rate, ours to its, of pairs** (lowest–highest) | cycles, ours to its, of pairs |"
  print "| --- | --- | --- | --- | --- | --- | --- |"
  for (i = 1; i <= cases; i++) {
    what = order[i]; c = what ~ /^large/ ? 5 : 4; count = split(contestants[what], names, " ")
    for (k = 1; k <= count; k++) if (names[k] != "ours") {
      column(what, names[k], 6); lost = n ? list[n] : 0
      printf "| %s | %s | %s | %s | %.1f %% | **%s** | %s |\n", what, names[k], figure(what, names[k], c), middle(what, names[k], 8, "%.0f"), lost, ratio(what, names[k], c), ratio(what, names[k], 8)
    }
  }
}
