package pages

import (
	"errors"
	"fmt"
	"html/template"
	"math"
	"strconv"
	"strings"
)

// Brand is how an operator's pages look. The zero value is plain.
type Brand struct {
	// Title stands above every page.
	Title string
	// Logo is the absolute path of an image on this site, beside the title.
	Logo string
	// Color is that of the main button: rrggbb or rgb, with or without a # before it.
	Color string
}

// Site writes the pages of one server.
type Site struct {
	brand Brand
	style template.CSS
}

// NewSite checks the brand.
func NewSite(b Brand) (*Site, error) {
	b.Title = Clean(b.Title, 80)
	// Only a path: the page loads nothing from elsewhere, which would also tell
	// others who signs in here.
	if b.Logo != "" && (!strings.HasPrefix(b.Logo, "/") || strings.HasPrefix(b.Logo, "//") || strings.ContainsAny(b.Logo, "\\\"' \t\r\n")) {
		return nil, errors.New("the logo is an absolute path on this site, such as /logo.svg: pages load nothing from elsewhere")
	}
	s := &Site{brand: b, style: style}
	if b.Color == "" {
		return s, nil
	}
	css, err := colorStyle(b.Color)
	if err != nil {
		return nil, err
	}
	s.style += css
	return s, nil
}

// colorStyle sets the accent: text on it is black or white, whichever is easier
// to read, and the button has an edge so that it does not melt into the card.
func colorStyle(color string) (template.CSS, error) {
	hex := strings.TrimPrefix(color, "#")
	if len(hex) == 3 { // as in CSS, each digit stands for two
		hex = string([]byte{hex[0], hex[0], hex[1], hex[1], hex[2], hex[2]})
	}
	rgb, err := strconv.ParseUint(hex, 16, 32)
	if len(hex) != 6 || err != nil {
		return "", fmt.Errorf("the color %q is not of the form 2454d6, #2454d6 or 25d", color)
	}
	linear := func(shift uint) float64 {
		c := float64(rgb>>shift&0xff) / 255
		if c <= 0.04045 {
			return c / 12.92
		}
		return math.Pow((c+0.055)/1.055, 2.4)
	}
	// WCAG 2.2, relative luminance and contrast ratio.
	luminance := 0.2126*linear(16) + 0.7152*linear(8) + 0.0722*linear(0)
	on := "#ffffff"
	if (luminance+0.05)/0.05 > 1.05/(luminance+0.05) {
		on = "#000000"
	}
	return template.CSS(fmt.Sprintf( //nolint:gosec // six hexadecimal digits
		"\n.primary { --accent: #%06x; --on-accent: %s; --edge: color-mix(in srgb, #%06x 60%%, var(--text)); }\n", rgb, on, rgb)), nil
}
