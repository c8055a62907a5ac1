package main

// line is y = offset + slope·x.
type line struct{ offset, slope float64 }

func (l line) at(x float64) float64 { return l.offset + l.slope*x }

type point struct{ x, y float64 }

// fit is the line with the least squares; false for fewer than two different x.
func fit(points []point) (line, bool) {
	var n, sx, sy, sxx, sxy float64
	for _, p := range points {
		n++
		sx += p.x
		sy += p.y
		sxx += p.x * p.x
		sxy += p.x * p.y
	}
	d := n*sxx - sx*sx
	if n < 2 || d == 0 {
		return line{}, false
	}
	slope := (n*sxy - sx*sy) / d
	return line{(sy - slope*sx) / n, slope}, true
}

// totals are what all connections together take, against their number, in bytes.
func (r *resultSet) totals(prefix, suffix, impl, unit string) (points []point) {
	for _, base := range r.bases(prefix) {
		n, ok := parameter(base, "conns")
		if v := r.value(base, impl, unit); ok && v.n > 0 && hasSuffix(base, suffix) {
			points = append(points, point{float64(n), v.median * float64(n)})
		}
	}
	return points
}

func hasSuffix(base, suffix string) bool {
	return len(base) >= len(suffix) && base[len(base)-len(suffix):] == suffix
}
