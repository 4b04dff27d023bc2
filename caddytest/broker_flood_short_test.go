//go:build !long

package caddytest_test

// floodRequests is how many requests TestFlood sends.
const floodRequests = 2_500
