package caddytest_test

import (
	"bytes"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"
)

// pages are README.md and all of docs.
func pages(t *testing.T) []string {
	t.Helper()
	paths := []string{"../README.md"}
	err := filepath.WalkDir("../docs", func(path string, entry fs.DirEntry, err error) error {
		if err == nil && !entry.IsDir() && strings.HasSuffix(path, ".md") {
			paths = append(paths, path)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return paths
}

// codeBlock is a fenced block of a page.
type codeBlock struct {
	page, info, text string
	line             int
}

func (b codeBlock) name() string {
	return filepath.Base(b.page) + ":" + strconv.Itoa(b.line)
}

// codeBlocks returns the blocks of all pages whose info string begins with
// the language.
func codeBlocks(t *testing.T, language string) []codeBlock {
	t.Helper()
	var blocks []codeBlock
	for _, page := range pages(t) {
		data, err := os.ReadFile(page)
		if err != nil {
			t.Fatal(err)
		}
		var open *codeBlock
		for i, line := range strings.Split(string(data), "\n") {
			fence, isFence := strings.CutPrefix(line, "```")
			switch {
			case !isFence && open != nil:
				open.text += line + "\n"
			case isFence && open == nil:
				open = &codeBlock{page: page, info: fence, line: i + 1}
			case isFence:
				if first, _, _ := strings.Cut(open.info, " "); first == language {
					blocks = append(blocks, *open)
				}
				open = nil
			}
		}
		if open != nil {
			t.Errorf("%s: the code block of line %d has no end", page, open.line)
		}
	}
	if len(blocks) == 0 {
		t.Fatalf("no block of %s was found", language)
	}
	return blocks
}

// TestDocsCaddyfiles formats, adapts and validates every Caddyfile of the
// documentation. A block is a whole Caddyfile, or by its info string a part:
// "fragment" for what stands in a site, "fragment mcp_auth", "fragment proxy"
// and "fragment resource" for what stands in these blocks, "fragment broker" for
// what stands beside an upstream.
func TestDocsCaddyfiles(t *testing.T) {
	for _, block := range codeBlocks(t, "caddyfile") {
		t.Run(block.name(), func(t *testing.T) {
			if formatted := string(caddyfile.Format([]byte(block.text))); strings.TrimSpace(formatted) != strings.TrimSpace(block.text) {
				t.Errorf("caddy fmt makes of it:\n%s", formatted)
			}
			text := provideValues(t, wrapCaddyfile(t, block))
			config, warnings, err := caddyconfig.GetAdapter("caddyfile").Adapt([]byte(text), map[string]any{"filename": block.name()})
			if err != nil {
				t.Fatal(err)
			}
			for _, warning := range warnings {
				if !strings.Contains(warning.Message, "not formatted") {
					t.Error(warning)
				}
			}
			validate(t, config)
		})
	}
}

func wrapCaddyfile(t *testing.T, block codeBlock) string {
	t.Helper()
	const mode = "proxy {\nissuer https://idp.example.com\naudience https://mcp.example.com/mcp\n}\n"
	inSite := func(text string) string { return "https://mcp.example.com {\n" + text + "\n}\n" }
	inAuth := func(text string) string { return inSite("mcp_auth https://mcp.example.com {\n" + text + "\n}") }
	_, part, _ := strings.Cut(block.info, " ")
	switch part {
	case "":
		return block.text
	case "fragment":
		return inSite(block.text)
	case "fragment mcp_auth":
		if regexp.MustCompile(`(?m)^(upstream|accounts|proxy|authorization_server)\b`).MatchString(block.text) {
			return inAuth(block.text)
		}
		return inAuth(mode + block.text)
	case "fragment broker":
		return inAuth("upstream oidc https://idp.example.com {\nclient_id x\n}\n" + block.text)
	case "fragment proxy":
		return inAuth("proxy {\n" + block.text + "\n}")
	case "fragment resource":
		return inAuth(mode + "resource /mcp {\n" + block.text + "\n}")
	default:
		t.Fatalf("%s: the info string %q is unknown", block.name(), block.info)
		return ""
	}
}

var (
	envPlaceholder  = regexp.MustCompile(`\{env\.([^}]+)\}`)
	filePlaceholder = regexp.MustCompile(`\{file\.[^}]+\}`)
)

// provideValues sets the environment variables that the text names, and puts
// a file in the place of those that it names.
func provideValues(t *testing.T, text string) string {
	t.Helper()
	// A value that is good for every setting: base64 of 32 bytes.
	value := func(name string) string {
		sum := sha256.Sum256([]byte(name))
		return base64.StdEncoding.EncodeToString(sum[:])
	}
	for _, match := range envPlaceholder.FindAllStringSubmatch(text, -1) {
		t.Setenv(match[1], value(match[1]))
	}
	file := filepath.Join(t.TempDir(), "secret")
	if err := os.WriteFile(file, []byte(value("file")), 0o600); err != nil {
		t.Fatal(err)
	}
	return filePlaceholder.ReplaceAllLiteralString(text, "{file."+file+"}")
}

// validate provisions a configuration, with a storage of its own.
func validate(t *testing.T, config []byte) {
	t.Helper()
	var cfg caddy.Config
	// As the admin API does, for which alone @id is.
	if err := caddy.StrictUnmarshalJSON(caddy.RemoveMetaFields(config), &cfg); err != nil {
		t.Fatal(err)
	}
	storage, err := json.Marshal(map[string]string{"module": "file_system", "root": t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	cfg.StorageRaw = storage
	cfg.Admin = &caddy.AdminConfig{Disabled: true}
	if err := caddy.Validate(&cfg); err != nil {
		t.Error(err)
	}
}

// TestDocsJSON validates every configuration in JSON: "json config" is a whole
// one, "json handler" one handler of a route. Other blocks have to be JSON.
func TestDocsJSON(t *testing.T) {
	for _, block := range codeBlocks(t, "json") {
		t.Run(block.name(), func(t *testing.T) {
			_, part, _ := strings.Cut(block.info, " ")
			text := provideValues(t, block.text)
			if !json.Valid([]byte(text)) {
				t.Fatal("this is not JSON")
			}
			switch part {
			case "":
			case "config":
				validate(t, []byte(text))
			case "handler":
				validate(t, []byte(`{"apps":{"http":{"servers":{"srv0":{"listen":[":443"],"routes":[{"handle":[`+text+`]}]}}}}}`))
			default:
				t.Fatalf("the info string %q is unknown", block.info)
			}
		})
	}
}

// testName is how a page names a test: package.TestName, and after a slash the
// row of its table.
var testName = regexp.MustCompile("`(\\w+)\\.((?:Test|Fuzz|Example|Benchmark)\\w*)(?:/([^`]+))?`")

// TestDocsNameTests: every test that the documentation names is there, and so
// is the row.
func TestDocsNameTests(t *testing.T) {
	packages := make(map[string]testSources)
	names := 0
	for _, page := range pages(t) {
		data, err := os.ReadFile(page)
		if err != nil {
			t.Fatal(err)
		}
		for _, match := range testName.FindAllSubmatch(data, -1) {
			names++
			folder, name, row := string(match[1]), string(match[2]), string(match[3])
			if _, ok := packages[folder]; !ok {
				packages[folder] = readTestSources(t, folder)
			}
			literals, ok := packages[folder][name]
			if !ok {
				t.Errorf("%s names %s.%s, which does not exist", page, folder, name)
			} else if row != "" && !literals[row] {
				t.Errorf("%s names the row %q of %s.%s, which does not exist", page, row, folder, name)
			}
		}
	}
	if names < 50 {
		t.Errorf("only %d tests are named", names)
	}
}

// testSources are, by the name of a test function, its string literals.
type testSources map[string]map[string]bool

func readTestSources(t *testing.T, folder string) testSources {
	t.Helper()
	dir := filepath.Join("..", folder)
	if folder == "caddytest" {
		dir = "."
	}
	files, err := filepath.Glob(filepath.Join(dir, "*_test.go"))
	if err != nil {
		t.Fatal(err)
	}
	sources := make(testSources)
	for _, path := range files {
		file, err := parser.ParseFile(token.NewFileSet(), path, nil, parser.SkipObjectResolution)
		if err != nil {
			t.Fatal(err)
		}
		for _, declaration := range file.Decls {
			function, ok := declaration.(*ast.FuncDecl)
			if !ok || function.Recv != nil {
				continue
			}
			literals := make(map[string]bool)
			ast.Inspect(function, func(node ast.Node) bool {
				if literal, ok := node.(*ast.BasicLit); ok && literal.Kind == token.STRING {
					if text, err := strconv.Unquote(literal.Value); err == nil {
						literals[text] = true
					}
				}
				return true
			})
			sources[function.Name.Name] = literals
		}
	}
	return sources
}

// link finds the relative links of a page.
var link = regexp.MustCompile(`\]\(([^)#:\s]+)(#[^)]*)?\)`)

// TestDocsLinks: files that a page links to are there.
func TestDocsLinks(t *testing.T) {
	for _, page := range pages(t) {
		data, err := os.ReadFile(page)
		if err != nil {
			t.Fatal(err)
		}
		if bytes.Contains(data, []byte("\r")) {
			t.Errorf("%s has a carriage return", page)
		}
		for _, match := range link.FindAllSubmatch(data, -1) {
			if _, err := os.Stat(filepath.Join(filepath.Dir(page), string(match[1]))); err != nil {
				t.Errorf("%s: %v", page, err)
			}
		}
	}
}
