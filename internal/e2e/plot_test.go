package e2e

import (
	"encoding/xml"
	"fmt"
	"io"
	"math"
	"strings"
	"testing"
	"time"
)

// The measures of a plot, in pixels.
const (
	plotWidth  = 800
	plotLeft   = 70 // of the curves: room for numbers
	plotRight  = 25 // half of the last minute
	plotTop    = 30 // of each panel: room for its title
	plotHeight = 110
	plotBelow  = 22 // room for the minutes
)

// Colours that are seen on white and on black.
var plotColours = []string{"#d9822b", "#3b82c4", "#2e9e5b", "#9b6bd3", "#8a8a8a"}

// panel is one diagram of a plot: curves over one axis of time.
type panel struct {
	title     string
	unit      float64 // what a value is divided by
	processes []string
	points    map[string][]point
}

// panelsOf are what a soak shows. What only grows is shown as a rate.
func panelsOf(samples []sample) (panels []panel) {
	for _, p := range []struct {
		column, title string
		unit          float64
	}{
		{"heap_bytes", "heap in use after collection, MiB", 1 << 20},
		{"resident_bytes", "resident memory, MiB", 1 << 20},
		{"goroutines", "goroutines", 1},
		{"descriptors", "open descriptors", 1},
		{"disk_bytes", "data directory, MiB", 1 << 20},
		{"answered", "calls answered to the callers in the process, thousand a second", 1000},
		{"processor_ms", "processors in use", 1000},
	} {
		processes, points := series(samples, quantityOf(p.column))
		if p.column == "answered" || p.column == "processor_ms" {
			for process := range points {
				points[process] = rates(points[process])
			}
		}
		panels = append(panels, panel{p.title, p.unit, processes, points})
	}
	return panels
}

// rates are how much a value grows in a second.
func rates(points []point) (list []point) {
	for i := 1; i < len(points); i++ {
		if passed := points[i].at - points[i-1].at; passed > 0 {
			list = append(list, point{points[i].at, (points[i].value - points[i-1].value) / passed.Seconds()})
		}
	}
	return list
}

// writePlot draws panels below each other. Text has the colour of what it stands
// in, or one that is seen on any background.
func writePlot(to io.Writer, panels []panel) error {
	var b strings.Builder
	const pitch = plotTop + plotHeight + plotBelow
	fmt.Fprintf(&b, `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 %d %d" font-family="sans-serif" font-size="11" fill="#808080">`+"\n", plotWidth, pitch*len(panels)+plotTop)
	for i := range panels {
		fmt.Fprintf(&b, `<g transform="translate(0 %d)">`+"\n", i*pitch)
		panels[i].draw(&b)
		b.WriteString("</g>\n")
	}
	if len(panels) > 0 {
		for i, process := range panels[0].processes {
			x, y := plotLeft+i*110, pitch*len(panels)+15
			fmt.Fprintf(&b, `<path d="M%d %dh20" stroke="%s" stroke-width="3"/><text x="%d" y="%d">`, x, y-4, plotColours[i%len(plotColours)], x+26, y)
			_ = xml.EscapeText(&b, []byte(process)) // of a Builder
			b.WriteString("</text>\n")
		}
	}
	b.WriteString("</svg>\n")
	_, err := io.WriteString(to, b.String())
	return err
}

func (p *panel) draw(b *strings.Builder) {
	last, top := time.Second, 0.0
	for _, points := range p.points {
		for _, at := range points {
			last, top = max(last, at.at), max(top, at.value/p.unit)
		}
	}
	step := round(top / 4)
	top = max(step*math.Ceil(top/step), step)
	x := func(at time.Duration) float64 {
		return plotLeft + (plotWidth-plotLeft-plotRight)*at.Seconds()/last.Seconds()
	}
	y := func(value float64) float64 { return plotTop + plotHeight*(1-value/top) }
	fmt.Fprintf(b, `<text x="%d" y="%d" font-weight="bold">`, plotLeft, plotTop-10)
	_ = xml.EscapeText(b, []byte(p.title))
	b.WriteString("</text>\n")
	for v := 0.0; v <= top*1.001; v += step {
		fmt.Fprintf(b, `<path d="M%d %.1fH%d" stroke="#808080" stroke-opacity="0.3"/><text x="%d" y="%.1f" text-anchor="end">%.6g</text>`+"\n",
			plotLeft, y(v), plotWidth-plotRight, plotLeft-6, y(v)+4, v)
	}
	beat := time.Duration(round(last.Minutes()/10) * float64(time.Minute))
	for at := time.Duration(0); at <= last; at += beat {
		fmt.Fprintf(b, `<text x="%.1f" y="%d" text-anchor="middle">%.6g min</text>`+"\n", x(at), plotTop+plotHeight+15, at.Minutes())
	}
	for i, process := range p.processes {
		fmt.Fprintf(b, `<polyline fill="none" stroke="%s" stroke-width="1.5" points="`, plotColours[i%len(plotColours)])
		for _, at := range p.points[process] {
			fmt.Fprintf(b, "%.1f,%.1f ", x(at.at), y(at.value/p.unit))
		}
		b.WriteString("\"/>\n")
	}
}

// round is the next 1, 2 or 5 times a power of ten.
func round(v float64) float64 {
	if v <= 0 {
		return 1
	}
	power := math.Pow(10, math.Floor(math.Log10(v)))
	for _, times := range []float64{1, 2, 5} {
		if v <= times*power {
			return times * power
		}
	}
	return 10 * power
}

func TestPlot(t *testing.T) {
	t.Parallel()
	samples := []sample{
		{0, "n1 <&>", gauge{Heap: 1 << 20, Disk: 64 << 20}},
		{0, "n2", gauge{Heap: 2 << 20}},
		{10 * time.Minute, "n1 <&>", gauge{Heap: 8 << 20, Acks: 600_000, Processor: 240_000}},
		{10 * time.Minute, "n2", gauge{Heap: 4 << 20}},
	}
	var b strings.Builder
	if err := writePlot(&b, panelsOf(samples)); err != nil {
		t.Fatal(err)
	}
	curves := 0
	for d := xml.NewDecoder(strings.NewReader(b.String())); ; {
		token, err := d.Token()
		if err == io.EOF {
			break
		}
		if err != nil {
			t.Fatalf("%v in\n%s", err, &b)
		}
		if begin, ok := token.(xml.StartElement); ok && begin.Name.Local == "polyline" {
			curves++
		}
	}
	if want := 7 * 2; curves != want {
		t.Errorf("%d curves, want %d", curves, want)
	}
	if strings.Contains(b.String(), "0000000") {
		t.Errorf("a number that is not rounded in\n%s", &b)
	}
	// Heap from 1 to 8 of 8 MiB, over the whole width; one rate, of a thousand.
	for _, want := range []string{`"70.0,126.2 775.0,30.0 "`, `"775.0,30.0 "`, ">10 min<", ">0.5<"} {
		if !strings.Contains(b.String(), want) {
			t.Errorf("no %s in\n%s", want, &b)
		}
	}
}
