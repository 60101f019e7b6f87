// Command gitops prints what GitOps tools make of an object: Argo CD by a Lua script, Flux by CEL
// expressions, and kstatus. It reads {"object", "lua", "flux"} as JSON from its standard input. It is
// what tests run.
package main

import (
	"context"
	"encoding/json"
	"fmt"
	"os"

	"github.com/fluxcd/cli-utils/pkg/kstatus/status"
	"github.com/fluxcd/pkg/apis/kustomize"
	"github.com/fluxcd/pkg/runtime/cel"
	lua "github.com/yuin/gopher-lua"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
)

type question struct {
	Object unstructured.Unstructured        `json:"object"`
	Lua    string                           `json:"lua"`
	Flux   kustomize.HealthCheckExpressions `json:"flux"`
}

type answer struct {
	Argo    map[string]string `json:"argo"`
	Flux    string            `json:"flux"`
	Kstatus string            `json:"kstatus"`
}

func main() {
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func run() error {
	var asked question
	if err := json.NewDecoder(os.Stdin).Decode(&asked); err != nil {
		return err
	}
	object := &asked.Object
	health, err := argo(asked.Lua, object.Object)
	if err != nil {
		return fmt.Errorf("argo: %w", err)
	}
	evaluator, err := cel.NewStatusEvaluator(&asked.Flux)
	if err != nil {
		return fmt.Errorf("flux: %w", err)
	}
	flux, err := evaluator.Evaluate(context.Background(), object)
	if err != nil {
		return fmt.Errorf("flux: %w", err)
	}
	general, err := status.Compute(object)
	if err != nil {
		return fmt.Errorf("kstatus: %w", err)
	}
	return json.NewEncoder(os.Stdout).Encode(answer{health, flux.Status.String(), general.Status.String()})
}

// argo runs a script as Argo CD does: the object is `obj`, the libraries are base, table and string.
func argo(script string, object map[string]any) (map[string]string, error) {
	state := lua.NewState(lua.Options{SkipOpenLibs: true})
	defer state.Close()
	for name, open := range map[string]lua.LGFunction{
		lua.BaseLibName:   lua.OpenBase,
		lua.TabLibName:    lua.OpenTable,
		lua.StringLibName: lua.OpenString,
	} {
		if err := state.CallByParam(lua.P{Fn: state.NewFunction(open), Protect: true}, lua.LString(name)); err != nil {
			return nil, err
		}
	}
	state.SetGlobal("obj", value(state, object))
	if err := state.DoString(script); err != nil {
		return nil, err
	}
	table, ok := state.Get(-1).(*lua.LTable)
	if !ok {
		return nil, fmt.Errorf("the script returned %s, not a table", state.Get(-1).Type())
	}
	health := map[string]string{}
	table.ForEach(func(key, value lua.LValue) { health[key.String()] = value.String() })
	return health, nil
}

func value(state *lua.LState, given any) lua.LValue {
	switch given := given.(type) {
	case map[string]any:
		table := state.NewTable()
		for key, inner := range given {
			table.RawSetString(key, value(state, inner))
		}
		return table
	case []any:
		table := state.NewTable()
		for _, inner := range given {
			table.Append(value(state, inner))
		}
		return table
	case string:
		return lua.LString(given)
	case int64:
		return lua.LNumber(given)
	case float64:
		return lua.LNumber(given)
	case bool:
		return lua.LBool(given)
	default:
		return lua.LNil
	}
}
