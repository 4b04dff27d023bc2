package mcpauth

import (
	"encoding/json"
	"fmt"
	"reflect"
	"regexp"
	"strings"

	"github.com/caddyserver/caddy/v2"
)

// resolved returns a copy of config, a pointer to a JSON configuration, in
// which every {env.*}, {file.*} and {system.*} placeholder of every string has
// been replaced. The original keeps its placeholders, so that the exported
// configuration never holds a secret.
//
// Expressions are left alone. A placeholder that is empty, and one that only a request could fill, is an
// error that names the setting and the placeholder, but no value.
func resolved[T any](config *T) (*T, error) {
	data, err := json.Marshal(config)
	if err != nil {
		return nil, err
	}
	copied := new(T)
	if err := json.Unmarshal(data, copied); err != nil {
		return nil, err
	}
	if err := resolveStrings(reflect.ValueOf(copied).Elem(), "", caddy.NewReplacer()); err != nil {
		return nil, err
	}
	return copied, nil
}

func resolveStrings(v reflect.Value, name string, repl *caddy.Replacer) error {
	switch v.Kind() {
	case reflect.Pointer:
		if v.IsNil() {
			return nil
		}
		return resolveStrings(v.Elem(), name, repl)
	case reflect.Struct:
		for i := range v.NumField() {
			field := v.Type().Field(i)
			if !field.IsExported() {
				continue
			}
			tag, _, _ := strings.Cut(field.Tag.Get("json"), ",")
			if err := resolveStrings(v.Field(i), joinName(name, tag), repl); err != nil {
				return err
			}
		}
	case reflect.Slice:
		if v.Type() == reflect.TypeFor[json.RawMessage]() {
			return nil // a guest module resolves its own
		}
		for i := range v.Len() {
			if err := resolveStrings(v.Index(i), fmt.Sprintf("%s[%d]", name, i), repl); err != nil {
				return err
			}
		}
	case reflect.Map:
		for _, key := range v.MapKeys() {
			element := reflect.New(v.Type().Elem()).Elem()
			element.Set(v.MapIndex(key))
			if err := resolveStrings(element, joinName(name, key.String()), repl); err != nil {
				return err
			}
			v.SetMapIndex(key, element)
		}
	case reflect.String:
		if v.Type() == reflect.TypeFor[Expression]() {
			return nil // its braces are its own
		}
		replaced, err := resolveString(v.String(), repl)
		if err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
		v.SetString(replaced)
	default: // holds no string
	}
	return nil
}

func joinName(parent, name string) string {
	if parent == "" {
		return name
	}
	return parent + "." + name
}

// requestPlaceholder finds placeholders that have a value only while a request
// is served.
var requestPlaceholder = regexp.MustCompile(`\{(http|tls|vars|rp|l4)\.[^}]*\}`)

func resolveString(s string, repl *caddy.Replacer) (string, error) {
	if !hasPlaceholder(s) {
		return s, nil
	}
	if found := requestPlaceholder.FindString(s); found != "" {
		return "", fmt.Errorf("%s has no value outside a request; use {env.…} or {file.…}, or write the value", found)
	}
	replaced, err := repl.ReplaceOrErr(s, true, true)
	if err != nil {
		return "", fmt.Errorf("%w; set it before Caddy starts", err)
	}
	return replaced, nil
}
