//go:build tools

// Package tools pins Prometheus, whose promtool evaluates the chart's alerts.
package tools

import _ "github.com/prometheus/prometheus/cmd/promtool"
